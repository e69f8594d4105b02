"""Programs that stand where Nix's are, note how they were called, and do what a test says."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

VERSION = "nix-build (Nix) 2.26.3"
_NOTE = """\
#!/bin/sh
if [ "$*" = --version ]; then echo '{version}'; exit 0; fi
printf '%s\\n' {name} "$@" '' >> '{calls}'
{body}
"""


@dataclass(frozen=True)
class FakeNix:
    """A directory of programs that is first on PATH, and a store of its own."""

    directory: Path

    @property
    def store(self) -> Path:
        """Where store paths are."""
        return self.directory / "store"

    @property
    def calls(self) -> list[list[str]]:
        """The argument lists so far, but for `--version`."""
        try:
            text = (self.directory / "calls").read_text()
        except FileNotFoundError:
            return []
        return [call.splitlines() for call in text.split("\n\n") if call.strip()]

    def program(self, name: str, body: str, *, version: str = VERSION) -> Path:
        """Put a program there."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.write_text(_NOTE.format(name=name, calls=self.directory / "calls", body=body, version=version))
        path.chmod(0o755)
        return path

    def builds(self, path: Path, *, files_read: tuple[Path, ...] = (), before: str = "") -> None:
        """Let nix-build give that path and say that it read these files; nix-store makes roots as links."""
        said = "".join(
            f"""echo '@nix {{"action":"msg","level":4,"msg":"evaluating file '"'{file}'"'"}}' >&2\n"""
            for file in files_read
        )
        link = 'while [ "$1" != -o ]; do shift; done; ln -s {path} "$2"'
        self.program("nix-build", f"{before}\n{said}{link.format(path=path)}\necho {path}")
        self.program("nix-store", 'test -e "$5" && ln -sfn "$5" "$2" && echo "$2"')


def install_fake_nix(directory: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNix:
    """Nix's programs for one test; nix-instantiate finds a nixpkgs in the store."""
    nix = FakeNix(directory)
    nix.store.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setenv("NIX_STORE_DIR", str(nix.store))
    for name in ("nix-build", "nix-store"):
        nix.program(name, "exit 1")
    nixpkgs = nix.store / f"{'n' * 32}-source"
    nixpkgs.mkdir()
    answer = json.dumps({"path": str(nixpkgs), "version": "26.11", "revision": "c05d"})
    nix.program("nix-instantiate", f"echo '{answer}'")
    return nix


def image_in_store(nix: FakeNix, digest: str = "d" * 32, **fields: object) -> Path:
    """A store path that is an image, as nix/image.nix makes one."""
    path = nix.store / f"{digest}-vmrunner-image"
    path.mkdir()
    contents = {"bzImage": b"kernel", "initrd": b"initrd", "root.img": b"root"}
    for name, content in contents.items():
        (path / name).write_bytes(content)
    manifest: dict[str, object] = {
        "format_version": 2, "name": "nixos", "digest": digest, "architecture": "x86_64", "kernel": "bzImage",
        "initrd": "initrd", "kernel_command_line": "console=ttyS0", "root_disk": "root.img",
        "root_disk_format": "raw", "root_disk_size": 4, "init": "/init", "systemd_version": "257", "glibc": "2.40",
        "nextest": "0.9.100", "interpreters": [], "libraries": [], "store_paths": [], "built_from": {},
        "created": "1970-01-01T00:00:01+00:00",
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        },
    }  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest | fields))
    return path

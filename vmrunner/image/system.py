"""What the manifest says about a Debian system, read from its unpacked tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageBuildFailed

# Where the psABI documents and distributions put the dynamic loaders of x86-64 programs.
_LOADERS: Final = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux.so.2", "/lib/ld-musl-x86_64.so.1")
_UPSTREAM: Final = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


def installed_packages(tree: Path) -> dict[str, str]:
    """Installed packages and their versions, from dpkg's database."""
    found = {}
    for paragraph in (tree / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line)
        )
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields["Version"]
    return found


def version_of(package: str, installed: dict[str, str]) -> str:
    """The upstream version of an installed package: `2.41-12` -> `2.41`."""
    match = _UPSTREAM.match(installed.get(package, ""))
    if match is None:
        raise ImageBuildFailed(f"the system has no {package}", hint="the recipe's packages must bring it")
    return match[1]


def host_key(tree: Path) -> str:
    """The public half of the guest's ed25519 host key, without its comment."""
    path = tree / "etc/ssh/ssh_host_ed25519_key.pub"
    try:
        kind, key, *_ = path.read_text().split()
    except (OSError, ValueError) as error:
        raise ImageBuildFailed(
            "the system has no ed25519 host key",
            hint="the recipe must make one and leave its public half there",
        ) from error
    return f"{kind} {key}"


def interpreters(tree: Path) -> tuple[str, ...]:
    """The dynamic loaders that exist in the system, as programs name them."""
    return tuple(loader for loader in _LOADERS if _exists(tree, loader))


def _exists(tree: Path, path: str) -> bool:
    """Whether `path` exists in the tree; absolute links are followed within it."""
    current = tree / path.lstrip("/")
    for _ in range(40):
        if not current.is_symlink():
            return current.exists()
        target = current.readlink()
        current = tree / str(target).lstrip("/") if target.is_absolute() else current.parent / target
    return False

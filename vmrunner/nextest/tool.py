"""Finding cargo-nextest on this computer: it makes archives here, and may be carried into a guest."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.host.program_version import version_output
from vmrunner.nextest.elf import read_elf

NAME = "cargo-nextest"
INSTALL_HINT = (
    "install it with `pip install 'vmrunner[nextest]'`, with `cargo install cargo-nextest --locked`, "
    "or pre-built from https://nexte.st/docs/installation/pre-built-binaries/"
)
_VERSION = re.compile(r"cargo-nextest (\d+\.\d+\.\d+\S*)")
_VERSION_SECONDS = 20.0


@dataclass(frozen=True)
class NextestTool:
    """A cargo-nextest that runs here; the rest is what a guest must have to run the same file.

    `interpreter` and `glibc` are None for a static program.
    """

    path: Path
    version: str
    architecture: str
    interpreter: str | None
    glibc: str | None

    @property
    def identity(self) -> str:
        """A word that changes when the program is replaced; its version alone does not tell two builds apart."""
        found = self.path.resolve().stat()
        return f"{self.version}-{found.st_size:x}-{found.st_mtime_ns:x}"


def find_nextest(*, deadline: Deadline) -> NextestTool:
    """The first cargo-nextest of PATH, cargo's own directory, and this Python environment (the `nextest` extra).

    Raises HostError where there is none, or none that works.
    """
    unfit: list[str] = []
    for path in _candidates():
        needs = read_elf(path)
        if needs is None:
            unfit.append(f"{path}: not a Linux program (ELF), so a guest could not run it")
            continue
        result = version_output(path, ["nextest", "--version"], deadline=deadline.within(_VERSION_SECONDS))
        version = _VERSION.search(result.stdout)
        if result.code == 0 and version:
            return NextestTool(path, version[1], needs.architecture, needs.interpreter, needs.glibc)
        unfit.append(
            f"{path}: `--version` ended with {result.code}: {(result.stdout + result.stderr).strip()}"
        )
    if unfit:
        raise HostError(f"`{NAME}` does not work", hint=INSTALL_HINT, details="\n".join(unfit))
    raise HostError(f"`{NAME}` is not installed", hint=INSTALL_HINT)


def _candidates() -> Iterator[Path]:
    searched = os.environ.get("PATH", os.defpath).split(os.pathsep)
    cargo_home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    own = [Path(cargo_home) / "bin", Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    for directory in dict.fromkeys([*(Path(name) for name in searched if name), *own]):
        path = directory / NAME
        if path.is_file() and os.access(path, os.X_OK):
            yield path

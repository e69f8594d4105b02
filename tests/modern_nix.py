"""A newer Nix than the computer's own: Debian trixie's 2.26, unpacked and run in place, for tests that take either.

Nothing is installed: the packages are unpacked into a directory of the session, and each program is a script that starts
`nix` with its own dynamic loader and libraries.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from vmrunner.host.deadline import Deadline
from vmrunner.image.prerequisites import build_mode
from vmrunner.image.recipe import debian_recipe

PROGRAMS: Final = ("nix-build", "nix-daemon", "nix-instantiate", "nix-store")
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_SECONDS: Final = 300

# Nix starts itself again as the hook that asks other computers to build, which does not go through the script.
_SCRIPT: Final = """\
#!/bin/sh
export NIX_CONFIG="build-hook =
$NIX_CONFIG"
exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries} --argv0 {name} {nix} "$@"
"""


def modern_nix_programs(directory: Path) -> Path:
    """A directory with the programs of Debian trixie's Nix, made below `directory` once; the test is skipped where it cannot be."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("a modern Nix is unpacked by mmdebstrap, which is not on PATH")
    programs = directory / "bin"
    if programs.is_dir():
        return programs
    tree = directory / "trixie"
    tree.mkdir(parents=True)
    _unpack(tree, directory / "trixie.tar")
    programs.mkdir()
    for name in PROGRAMS:
        libraries, nix = shlex.quote(str(tree / _LIBRARIES)), shlex.quote(str(tree / "usr/bin/nix"))
        (programs / name).write_text(_SCRIPT.format(libraries=libraries, nix=nix, name=name))
        (programs / name).chmod(0o755)
    return programs


def _unpack(tree: Path, archive: Path) -> None:
    recipe = debian_recipe()
    for command in (
        [
            *(
                "mmdebstrap",
                f"--mode={build_mode(Deadline.after(_SECONDS))}",
                "--variant=extract",
                "--include=nix-bin",
            ),
            *(f"--keyring={recipe.keyring}", '--aptopt=APT::Install-Recommends "false"', "--skip=output/dev"),
            *("--quiet", "trixie", str(archive), recipe.sources[0]),
        ],
        ["tar", "--extract", "--no-same-owner", "--directory", str(tree), "--file", str(archive)],
    ):
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
        if done.returncode:
            pytest.skip(f"a modern Nix cannot be had: {command[0]}: {done.stderr.strip()[-300:]}")
    archive.unlink()


@pytest.fixture(scope="session")
def modern_nix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the programs of a modern Nix."""
    # The same for each module that imports the fixture, which pytest takes for different ones.
    return modern_nix_programs(tmp_path_factory.getbasetemp() / "modern-nix")

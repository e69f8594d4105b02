"""A Nix store that a test session has to itself: nothing is fetched from, written to or left in the computer's own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

STAND_IN: Final = Path(__file__).parent / "nixpkgs-stand-in"
"""What tests give to nix/ as nixpkgs."""

# No sandbox, so that builders see the programs of this computer; no group of build users, which only root could use; and
# no cache to fetch from.
_SETTINGS: Final = "sandbox = false\nbuild-users-group =\nsubstituters =\nsubstitute = false\n"
_SECONDS: Final = 300


@dataclass(frozen=True)
class NixStore:
    """The store's directories, and how Nix is told of them. `programs` is where Nix itself is found, if not on PATH."""

    directory: Path
    programs: Path | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What the environment of each Nix program has to have, and what the stand-in wants to be told by it.

        A system can be built only with NIXPKGS_STAND_IN_IMAGE, the directory of a Debian image, beside these.
        """
        places = {
            f"NIX_{name.upper()}_DIR": str(self.directory / name)
            for name in ("store", "state", "log", "conf")
        }
        # No daemon, no settings of the user's, no channels.
        nothing = {"NIX_REMOTE": "", "NIX_USER_CONF_FILES": "", "NIX_PATH": ""}
        return {**places, **nothing, "NIXPKGS_STAND_IN_VENV": sys.prefix}

    def run(
        self, program: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Nix's programs to its end, whatever its exit code."""
        found = str(self.programs / program) if self.programs else program
        own = {"XDG_CACHE_HOME": str(self.directory / "cache"), **self.variables, **(environment or {})}
        return subprocess.run(
            [found, *map(str, arguments)],
            env={**os.environ, **own},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )

    def evaluate(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Any:
        """The value of an expression, which must be one that JSON knows."""
        done = self.run(
            "nix-instantiate", "--eval", "--strict", "--json", *arguments, environment=environment
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def remove(self) -> None:
        """Remove all of it; Nix takes the write permission from whatever it keeps, directories included."""
        for path, _, _ in os.walk(self.directory):
            Path(path).chmod(stat.S_IRWXU)
        shutil.rmtree(self.directory)


def make_store(directory: Path, programs: Path | None = None) -> NixStore:
    """An empty store below `directory`, which need not be there yet."""
    (directory / "conf").mkdir(parents=True)
    (directory / "conf/nix.conf").write_text(_SETTINGS)
    return NixStore(directory, programs)


@pytest.fixture(scope="session")
def nix_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NixStore]:
    """The session's own store; tests that ask for it are skipped where there is no Nix."""
    if not shutil.which("nix-instantiate"):
        pytest.skip("nix-instantiate is not on PATH")
    store = make_store(tmp_path_factory.mktemp("nix") / "own")
    yield store
    store.remove()

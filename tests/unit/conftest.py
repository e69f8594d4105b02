"""What holds for every unit test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nix_store import nix_store
from nix_values import nix_values

from vmrunner.events import silent
from vmrunner.run.directory import RunDirectory, open_run_directory

__all__ = ["directories_of_its_own", "nix_store", "nix_values", "run", "runtime_home"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def runtime_home() -> Iterator[Path]:
    """A short path for sockets, and gone in the end."""
    with tempfile.TemporaryDirectory(prefix="vm-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def directories_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, runtime_home: Path
) -> None:
    """No test sees the user's cache and state, nor those of another test; none of them is there before it is used.

    The runtime directory is one for all tests.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_home))
    home = tmp_path_factory.getbasetemp() / f"home-{next(_numbers)}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run's own directories."""
    with open_run_directory(silent) as directory:
        yield directory

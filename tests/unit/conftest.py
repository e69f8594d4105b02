"""What holds for every unit test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from nix_store import nix_store
from nix_values import nix_values

from vmrunner.events import silent
from vmrunner.run.directory import RunDirectory, open_run_directory

__all__ = ["directories_of_its_own", "nix_store", "nix_values", "run"]

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def directories_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache and state, nor those of another test; none of them is there before it is used."""
    home = tmp_path_factory.getbasetemp() / f"home-{next(_numbers)}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run's own directories."""
    with open_run_directory(silent) as directory:
        yield directory

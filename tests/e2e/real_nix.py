"""Real Nix in a store of its own: the computer's, and a modern one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from modern_nix import modern_nix
from nix_store import NixStore, make_store

__all__ = ["modern_nix", "nix", "nix_of_file"]  # fixtures, for those who import them

NIX = ("computer", "trixie")


@pytest.fixture(scope="module", params=NIX)
def nix_of_file(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NixStore]:
    """An empty store and the programs for it, one after the other."""
    programs: Path | None = None
    if request.param == "trixie":
        programs = request.getfixturevalue("modern_nix")
    elif not shutil.which("nix-build"):
        pytest.skip("nix-build is not on PATH")
    store = make_store(tmp_path_factory.mktemp("nix") / "own", programs)
    yield store
    store.remove()


@pytest.fixture
def nix(nix_of_file: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NixStore:
    """The store, which this process and its children use for the time of a test, with a cache of the test's own."""
    for name, value in nix_of_file.variables.items():
        monkeypatch.setenv(name, value)
    if nix_of_file.programs:
        monkeypatch.setenv("PATH", f"{nix_of_file.programs}:/usr/bin:/bin")
    monkeypatch.setenv("NIX_CONFIG", "download-attempts = 1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return nix_of_file

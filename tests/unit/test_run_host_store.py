"""When a machine gets this host's Nix store, and when the programs of a run see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import write_program

from vmrunner.config.model import Config
from vmrunner.nextest.preflight import StoreNeeds
from vmrunner.run.host_store import lays_store, shared_store

NOTHING = StoreNeeds()
GLIBC = StoreNeeds({"/nix/store/aaaa-glibc": "debug/deps/demo"})


def config(how: str, archive: Path | None = None) -> Config:
    return Config.model_validate({"nix_store": how, "archive": archive})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This host's store, which no tool comes from."""
    directory = tmp_path / "store"
    directory.mkdir()
    monkeypatch.setenv("NIX_STORE_DIR", str(directory))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return directory


@pytest.mark.parametrize(
    ("how", "needs", "shared"),
    [
        ("auto", GLIBC, True),
        ("auto", NOTHING, False),
        ("auto", None, False),
        ("share", NOTHING, True),
        ("share", None, True),
        ("copy", GLIBC, False),
        ("off", GLIBC, False),
    ],
)
def test_what_the_setting_and_the_archive_make_of_it(
    store: Path, how: str, needs: StoreNeeds | None, shared: bool
) -> None:
    assert shared_store(config(how), needs) == (store if shared else None)


def test_before_the_archive_is_built_its_tools_tell(tmp_path: Path, store: Path) -> None:
    write_program(store / "cargo", "exit 0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cargo").symlink_to(store / "cargo")
    assert shared_store(config("auto"), None) == store
    assert shared_store(config("auto"), NOTHING) is None


def test_an_archive_from_elsewhere_that_was_not_looked_at_may_need_it(store: Path, tmp_path: Path) -> None:
    assert shared_store(config("auto", tmp_path / "a.tar.zst"), None) == store


def test_without_a_store_there_is_nothing_to_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_STORE_DIR", str(tmp_path / "none"))
    assert shared_store(config("share"), GLIBC) is None


@pytest.mark.parametrize(
    ("how", "needs", "shared", "laid"),
    [
        ("auto", GLIBC, True, True),
        ("auto", NOTHING, True, False),
        ("share", NOTHING, True, True),
        ("share", NOTHING, False, False),
        ("off", GLIBC, False, False),
        ("off", GLIBC, True, False),
    ],
)
def test_programs_see_it_where_they_need_it_or_it_was_asked_for(
    how: str, needs: StoreNeeds, shared: bool, laid: bool
) -> None:
    assert lays_store(config(how), needs, shared=shared) is laid

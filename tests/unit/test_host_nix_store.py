"""The Nix store of this computer: where it is, and what lies in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import write_program

from vmrunner.host.nix_store import (
    HostStore,
    builds_into_store,
    find_host_store,
    store_directory,
    store_path_of,
)


@pytest.mark.parametrize(
    ("path", "store_path"),
    [
        ("/nix/store/aaaa-glibc/lib/libc.so.6", "/nix/store/aaaa-glibc"),
        ("/nix/store/aaaa-glibc", "/nix/store/aaaa-glibc"),
        ("/nix/store/aaaa-glibc/lib/../../bbbb-x/lib", "/nix/store/bbbb-x"),
        ("/nix/store/aaaa-glibc/../../../lib", None),
        ("/nix/store", None),
        ("/nix/store/", None),
        ("/nix/storeroom/x", None),
        ("/home/u/nix/store/x", None),
        ("nix/store/x", None),
        ("x", None),
    ],
)
def test_the_store_path_that_a_path_lies_in(path: str, store_path: str | None) -> None:
    assert store_path_of(path) == store_path


def test_the_directory_of_the_store_is_chosen_as_nix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIX_STORE_DIR", raising=False)
    monkeypatch.delenv("NIX_STORE", raising=False)
    assert store_directory() == Path("/nix/store")
    monkeypatch.setenv("NIX_STORE", "/weaker/store")
    assert store_directory() == Path("/weaker/store")
    monkeypatch.setenv("NIX_STORE_DIR", "/own/store")
    assert store_directory() == Path("/own/store")


def test_the_store_is_where_nix_is_told_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_STORE_DIR", str(tmp_path))
    assert find_host_store() == HostStore(tmp_path)
    monkeypatch.setenv("NIX_STORE_DIR", str(tmp_path / "none"))
    assert find_host_store() is None


def test_a_link_in_the_store_counts_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "aaaa-x").mkdir()
    (tmp_path / "aaaa-x/libx.so").symlink_to("/nix/store/bbbb-y/libx.so.1")
    store = HostStore(tmp_path)
    assert store.has("/nix/store/aaaa-x")
    assert store.has("/nix/store/aaaa-x/libx.so")
    assert not store.has("/nix/store/bbbb-y")


@pytest.mark.parametrize("program", ["cargo", "cc"])
def test_who_builds_with_tools_of_the_store_gets_programs_that_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "store/aaaa-tools").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path / "profile"))
    store = HostStore(tmp_path / "store")
    assert not builds_into_store(store)
    tool = write_program(tmp_path / "elsewhere", "exit 0")
    (tmp_path / "profile" / program).symlink_to(tool)
    assert not builds_into_store(store)
    tool.rename(tmp_path / "store/aaaa-tools/tool")
    (tmp_path / "profile" / program).unlink()
    (tmp_path / "profile" / program).symlink_to(tmp_path / "store/aaaa-tools/tool")
    assert builds_into_store(store)

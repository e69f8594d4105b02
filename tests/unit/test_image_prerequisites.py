"""What a build needs from this computer, said before it starts."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from vmrunner.errors import HostError, ImageBuildFailed, exit_code_of
from vmrunner.host.deadline import Deadline
from vmrunner.image import prerequisites
from vmrunner.image.prerequisites import build_mode, check_free_space, check_tools

TOOLS = ("mmdebstrap", "mke2fs", "debugfs", "tar", "unshare", "newuidmap")
Usage = namedtuple("Usage", "total used free")


def _programs(directory: Path, monkeypatch: pytest.MonkeyPatch, *names: str, code: int = 0) -> None:
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (directory / name).chmod(0o755)
    monkeypatch.setattr(prerequisites, "_which", lambda tool: tool if tool in names else None)


@pytest.fixture
def keyring(tmp_path: Path) -> str:
    (tmp_path / "keyring.gpg").write_bytes(b"")
    return str(tmp_path / "keyring.gpg")


def test_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyring: str) -> None:
    _programs(tmp_path, monkeypatch, *TOOLS)
    check_tools(keyring)


def test_all_that_is_missing_is_one_apt_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(tmp_path, monkeypatch, "tar", "unshare")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        check_tools(str(tmp_path / "none.gpg"))
    assert exit_code_of(caught.value) == 20
    assert (caught.value.hint or "").endswith(" debian-archive-keyring e2fsprogs mmdebstrap uidmap")


def test_root_needs_no_uidmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyring: str) -> None:
    _programs(tmp_path, monkeypatch, *(tool for tool in TOOLS if tool != "newuidmap"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_tools(keyring)


def test_tool_outside_of_an_ordinary_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prerequisites.tool_path("ldconfig").endswith("/ldconfig")


def test_root_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert build_mode(Deadline.after(5)) == "root"


def _ordinary_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, ids: bool, namespaces: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(getpass, "getuser", lambda: "someone")
    monkeypatch.setattr(prerequisites, "_has_subordinate_ids", lambda path, user: ids and user == "someone")
    (tmp_path / "unshare").write_text(f"#!/bin/sh\necho not permitted >&2\nexit {0 if namespaces else 1}\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_ordinary_user_uses_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _ordinary_user(monkeypatch, tmp_path, ids=True, namespaces=True)
    assert build_mode(Deadline.after(5)) == "unshare"


def test_user_without_subordinate_ids_is_told_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _ordinary_user(monkeypatch, tmp_path, ids=False, namespaces=True)
    with pytest.raises(HostError, match="someone has no range of subordinate ids in /etc/subuid") as caught:
        build_mode(Deadline.after(5))
    assert "usermod --add-subuids" in (caught.value.hint or "")
    assert (caught.value.hint or "").endswith(" someone")


def test_host_without_namespaces_is_told_both_switches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _ordinary_user(monkeypatch, tmp_path, ids=True, namespaces=False)
    with pytest.raises(HostError, match="user namespace") as caught:
        build_mode(Deadline.after(5))
    assert exit_code_of(caught.value) == 20
    assert "unprivileged_userns_clone" in (caught.value.hint or "")
    assert "apparmor_restrict_unprivileged_userns" in (caught.value.hint or "")
    assert "not permitted" in (caught.value.details or "")


@pytest.mark.parametrize(
    ("content", "found"), [("someone:100000:65536\n", True), ("other:1:1\n", False), ("", False)]
)
def test_subordinate_ids(tmp_path: Path, content: str, found: bool) -> None:
    (tmp_path / "subuid").write_text(content)
    assert prerequisites._has_subordinate_ids(tmp_path / "subuid", "someone") is found


def test_subordinate_ids_by_number(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(f"{os.getuid()}:100000:65536\n")
    assert prerequisites._has_subordinate_ids(tmp_path / "subuid", "someone")


def test_no_file_of_subordinate_ids(tmp_path: Path) -> None:
    assert not prerequisites._has_subordinate_ids(tmp_path / "none", "someone")


def _free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free * 2, free, free))


def test_enough_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _free(monkeypatch, prerequisites.CHROOT_BYTES + prerequisites.STORE_BYTES)
    check_free_space(tmp_path, "root")


def test_too_little_room_says_how_much_is_free_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _free(monkeypatch, 1 << 30)
    with pytest.raises(
        ImageBuildFailed, match=r"has 1 GiB free, building the image takes 2\.05 GiB"
    ) as caught:
        check_free_space(tmp_path, "root")
    assert exit_code_of(caught.value) == 21
    assert str(tmp_path) in caught.value.message
    assert "image prune" in (caught.value.hint or "")


def test_one_disk_for_both_needs_room_for_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    _free(monkeypatch, prerequisites.STORE_BYTES)
    with pytest.raises(ImageBuildFailed):
        check_free_space(tmp_path, "unshare")

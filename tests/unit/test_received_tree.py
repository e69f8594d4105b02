"""Writing what a guest sends, one directory descriptor at a time."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from vmrunner.errors import GuestError, HostError, exit_code_of
from vmrunner.host.received_tree import on_host, receive_into


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    with receive_into(tmp_path) as here, here.file("a", mode=0o640, mtime=1000.0) as file:
        file.write(b"content")
        assert "a" not in names(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"content"
    status = (tmp_path / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o640, 1000)
    assert names(tmp_path) == ["a"]


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(ValueError, match="x"),
        receive_into(tmp_path) as here,
        here.file("a", mode=None, mtime=None),
    ):
        raise ValueError("x")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "a").symlink_to("target")
    with receive_into(tmp_path) as here, here.file("a", mode=0o600, mtime=None) as file:
        file.write(b"new")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()


def test_a_directory_gets_its_mode_when_it_is_filled(tmp_path: Path) -> None:
    with (
        receive_into(tmp_path) as here,
        here.directory("d", mode=0o2555, mtime=1000.0) as inner,
        inner.file("a", mode=None, mtime=None) as file,
    ):
        file.write(b"x")
    status = (tmp_path / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o555, 1000)
    assert (tmp_path / "d" / "a").read_bytes() == b"x"


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    with receive_into(tmp_path) as here, here.directory("d", mode=0o777, mtime=1000.0):
        pass
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_directory_in_the_place_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        (tmp_path / "d").symlink_to("elsewhere")
    else:
        (tmp_path / "d").touch()
    with (
        receive_into(tmp_path) as here,
        pytest.raises(HostError, match="/d` on this computer: Not a directory") as caught,
        here.directory("d", mode=None, mtime=None),
    ):
        pytest.fail("it was entered")
    assert exit_code_of(caught.value) == 20
    assert "through links" in str(caught.value.hint)


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        receive_into(tmp_path) as here,
        pytest.raises(HostError, match="Is a directory") as caught,
        here.file("a", mode=None, mtime=None),
    ):
        pass
    assert names(tmp_path) == ["a"]
    assert "remove it first" in str(caught.value.hint)


def test_links_are_made_as_they_are_and_replace_links(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("old")
    with receive_into(tmp_path) as here:
        here.link("l", "/etc/passwd")
        here.link("other", "../..")
    assert (tmp_path / "l").readlink() == Path("/etc/passwd")
    assert names(tmp_path) == ["l", "other"]


@pytest.mark.parametrize("target", ["", "a\0b"])
def test_a_link_to_nothing_is_refused(tmp_path: Path, target: str) -> None:
    with receive_into(tmp_path) as here, pytest.raises(GuestError, match="that no link can be"):
        here.link("l", target)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0"])
def test_names_that_are_paths_are_refused(tmp_path: Path, name: str) -> None:
    with receive_into(tmp_path) as here:
        with (
            pytest.raises(GuestError, match="no file can have") as caught,
            here.file(name, mode=None, mtime=None),
        ):
            pass
        with pytest.raises(GuestError), here.directory(name, mode=None, mtime=None):
            pass
        with pytest.raises(GuestError):
            here.link(name, "x")
    assert exit_code_of(caught.value) == 23
    assert names(tmp_path) == []


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"), receive_into(tmp_path / "none"):
        pass


def test_a_full_disk_says_what_to_do() -> None:
    with pytest.raises(HostError) as caught, on_host("/x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == "`/x` on this computer: No space left on device"
    assert "free some space" in str(caught.value.hint)

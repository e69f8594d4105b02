"""Files that a guest wrote are read without following anything it put in their place."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from vmrunner.errors import UnitFailed
from vmrunner.host.untrusted import copy_regular, open_regular, read_regular

FILE = PurePosixPath("a/b/file")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    root = tmp_path / "share"
    (root / "a" / "b").mkdir(parents=True)
    (root / FILE).write_bytes(b"content")
    return root


def refused(root: Path, relative: PurePosixPath = FILE, limit: int = 100) -> UnitFailed:
    with pytest.raises(UnitFailed) as caught:
        read_regular(root, relative, limit=limit, what="the log")
    assert caught.value.exit_code == 23
    assert caught.value.message.startswith("the log ")
    return caught.value


def test_a_regular_file(share: Path) -> None:
    assert read_regular(share, FILE, limit=7, what="the log") == b"content"


def test_a_file_can_be_read_in_parts(share: Path) -> None:
    with open_regular(share, FILE, what="the log") as file:
        assert file.read(3) == b"con"
        file.seek(5)
        assert file.read() == b"nt"


def test_a_file_that_is_not_there(share: Path) -> None:
    for relative in ("a/b/none", "a/none/file", "none"):
        with pytest.raises(FileNotFoundError):
            read_regular(share, PurePosixPath(relative), limit=9, what="the log")


def test_a_file_above_the_limit(share: Path) -> None:
    assert "6 bytes" in refused(share, limit=6).message


@pytest.mark.parametrize("target", ["/etc/passwd", "other", "/nonexistent"])
def test_a_link_in_place_of_the_file(share: Path, target: str) -> None:
    (share / FILE).unlink()
    (share / FILE).symlink_to(target)
    assert "symbolic link" in refused(share).message


@pytest.mark.parametrize("place", ["a", "a/b"])
def test_a_link_in_place_of_a_directory(share: Path, tmp_path: Path, place: str) -> None:
    (share / place).rename(tmp_path / "moved")
    (share / place).symlink_to(tmp_path / "moved")
    assert "symbolic link" in refused(share).message


def test_a_file_in_place_of_a_directory(share: Path) -> None:
    assert "cannot be read" in refused(share, PurePosixPath("a/b/file/deeper")).message


def test_a_fifo_does_not_block(share: Path) -> None:
    (share / FILE).unlink()
    os.mkfifo(share / FILE)
    assert "not a regular file" in refused(share).message


def test_a_directory_in_place_of_the_file(share: Path) -> None:
    (share / FILE).unlink()
    (share / FILE).mkdir()
    assert "not a regular file" in refused(share).message


@pytest.mark.parametrize("relative", ["../file", "a/../../file", "/etc/passwd", "."])
def test_a_path_that_leaves_the_share(share: Path, relative: str) -> None:
    assert "outside" in refused(share, PurePosixPath(relative)).message


def test_the_root_itself_may_be_reached_through_a_link(share: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(share)
    assert read_regular(tmp_path / "link", FILE, limit=100, what="the log") == b"content"


def test_a_copy(share: Path, tmp_path: Path) -> None:
    copy_regular(share, FILE, tmp_path / "copy", limit=100, what="the log")
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_nothing_stays_open(share: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (share / "link").symlink_to("a")
    refused(share, PurePosixPath("link/b/file"))
    read_regular(share, FILE, limit=100, what="the log")
    assert len(list(Path("/proc/self/fd").iterdir())) == before

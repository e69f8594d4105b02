"""A log read as it grows."""

from __future__ import annotations

from pathlib import Path

from vmrunner.host.followed_file import FollowedFile


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    followed = FollowedFile(log)
    assert followed.read() == b""
    log.write_bytes(b"one\n")
    assert followed.read() == b"one\n"
    assert followed.read() == b""
    with log.open("ab") as file:
        file.write(b"two\n")
    assert followed.read() == b"two\n"


def test_one_that_was_cut_short_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    followed = FollowedFile(log)
    log.write_bytes(b"a long line\n")
    followed.read()
    log.write_bytes(b"new\n")
    assert followed.read() == b"new\n"


def test_another_file_of_that_name_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    followed = FollowedFile(log)
    log.write_bytes(b"old\n")
    followed.read()
    (tmp_path / "next").write_bytes(b"longer than the old one\n")
    (tmp_path / "next").rename(log)
    assert followed.read() == b"longer than the old one\n"


def test_much_comes_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (3 << 20))
    followed = FollowedFile(log)
    pieces = list(iter(followed.read, b""))
    assert sum(map(len, pieces)) == 3 << 20
    assert len(pieces) == 3


def test_a_file_that_is_gone_is_silent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n")
    followed = FollowedFile(log)
    followed.read()
    log.unlink()
    assert followed.read() == b""

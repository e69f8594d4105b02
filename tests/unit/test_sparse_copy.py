"""Big files copied without more room than they need."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vmrunner.host import sparse_copy
from vmrunner.host.sparse_copy import copy_sparse, link_or_copy

MEBIBYTE = 1 << 20


def write_sparse(path: Path) -> None:
    """A hole, data, a hole, data, a hole."""
    with path.open("wb") as file:
        file.seek(MEBIBYTE)
        file.write(b"a" * 5000)
        file.seek(8 * MEBIBYTE)
        file.write(b"b")
        file.truncate(20 * MEBIBYTE)


def test_a_copy_has_the_content_and_the_holes(tmp_path: Path) -> None:
    write_sparse(tmp_path / "from")
    copy_sparse(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == (tmp_path / "from").read_bytes()
    assert (tmp_path / "to").stat().st_blocks * 512 < MEBIBYTE
    assert (tmp_path / "to").stat().st_mode & 0o777 == 0o600


def test_without_holes_and_empty(tmp_path: Path) -> None:
    for name, content in (("full", os.urandom(3 * MEBIBYTE)), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        copy_sparse(tmp_path / name, tmp_path / f"{name}.copy")
        assert (tmp_path / f"{name}.copy").read_bytes() == content


def test_a_copy_does_not_replace(tmp_path: Path) -> None:
    (tmp_path / "from").write_text("new")
    (tmp_path / "to").write_text("old")
    with pytest.raises(FileExistsError):
        copy_sparse(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").read_text() == "old"


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sparse_copy, "_copy_chunk", full)
    monkeypatch.setattr(sparse_copy, "_cloned", lambda *_: False)
    (tmp_path / "from").write_text("content")
    with pytest.raises(OSError, match="No space left"):
        copy_sparse(tmp_path / "from", tmp_path / "to")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_a_second_name_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "from").write_text("content")
    link_or_copy(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").samefile(tmp_path / "from")
    link_or_copy(tmp_path / "from", tmp_path / "to")


def test_across_file_systems_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "from").write_text("content")
    monkeypatch.setattr(os, "link", elsewhere)
    link_or_copy(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").read_text() == "content"
    assert not (tmp_path / "to").samefile(tmp_path / "from")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]


def test_any_other_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "missing", tmp_path / "to")

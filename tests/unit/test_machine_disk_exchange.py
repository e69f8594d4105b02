"""Other contents for the files of disks: all of them, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.machine.disk_exchange import DiskExchange


@pytest.fixture
def exchange(tmp_path: Path) -> DiskExchange:
    """A disk that is there and one that is not, each with another content prepared."""
    (tmp_path / "disk.qcow2").write_text("now")
    for name in ("saved", "saved-empty"):
        (tmp_path / name).write_text(name)
    pairs = [("disk.qcow2", "saved"), ("empty-0-1.qcow2", "saved-empty")]
    prepared = DiskExchange([(tmp_path / disk, tmp_path / source) for disk, source in pairs])
    prepared.prepare()
    prepared.do()
    return prepared


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.glob("*.qcow2")}


def test_what_goes_well_stays(exchange: DiskExchange, tmp_path: Path) -> None:
    exchange.keep()
    assert contents(tmp_path) == {"disk.qcow2": "saved", "empty-0-1.qcow2": "saved-empty"}


def test_what_does_not_is_undone(exchange: DiskExchange, tmp_path: Path) -> None:
    exchange.undo()
    assert contents(tmp_path) == {"disk.qcow2": "now"}


def test_nothing_is_changed_before_all_copies_are_there(tmp_path: Path) -> None:
    (tmp_path / "disk.qcow2").write_text("now")
    with pytest.raises(FileNotFoundError):
        DiskExchange([(tmp_path / "disk.qcow2", tmp_path / "gone")]).prepare()
    assert contents(tmp_path) == {"disk.qcow2": "now"}

"""Snapshots on disk: saved while the machine stands still, found, replaced and removed."""

from __future__ import annotations

import errno
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_qmp import FakeQmp, Refusal, qmp_session
from sample_vms import dead_process, sample_record, use_home, write_vm

from vmrunner.config.units import Size
from vmrunner.errors import HostError, UsageError, VmBusy, VmDamaged, VmNotRunning, exit_code_of
from vmrunner.events import silent
from vmrunner.guest.key import make_login_key
from vmrunner.host.deadline import Deadline
from vmrunner.machine import registry, snapshots
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import open_monitor
from vmrunner.machine.plan import RootDisk
from vmrunner.machine.qemu_process import ForeignQemu
from vmrunner.machine.snapshots import Snapshot, drop_unused_bases, find_snapshot, list_snapshots
from vmrunner.machine.vm_record import VmRecord, write_record
from vmrunner.run import vm_snapshots

SAVES = {
    "stop": {}, "cont": {}, "getfd": {}, "migrate": {}, "migrate_set_capabilities": {},
    "migrate_set_parameters": {}, "query_migrate": {"status": "completed"},
    "human_monitor_command": (
        "Hub -1 (net0):\n  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0\n"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vm-") as directory:
        use_home(Path(directory), monkeypatch)
        yield Path(directory)


@contextmanager
def machine(record: VmRecord, **answers: Any) -> Iterator[tuple[Machine, FakeQmp]]:
    """The VM's machine with a monitor that answers so."""
    process = ForeignQemu(dead_process(), record.directory.qemu_log)
    ours: socket.socket
    with (
        qmp_session(**(SAVES | answers)) as (ours, fake),
        open_monitor(ours, deadline=Deadline.after(5)) as monitor,
    ):
        live = Machine(record.plan, process, monitor, make_login_key())
        live.check_alive = lambda: None  # type: ignore[method-assign]  # its process is none
        yield live, fake
        live.guest.close()


def save(record: VmRecord, tag: str = "one", **answers: Any) -> Snapshot:
    with machine(record, **answers) as (live, _):
        return snapshots.save_snapshot(live, record, tag, clock_offset=-3600.0, deadline=Deadline.after(5))


def test_a_snapshot_holds_disk_key_and_clock_of_its_moment() -> None:
    record = write_vm()
    saved = save(record)
    record.directory.disk.write_text("changed since")
    found = find_snapshot("db", "one")
    assert found == saved
    assert found.disks[0][1].read_text() == "a disk"
    assert found.login_key.private == "a key"
    assert found.record.plan == record.plan
    assert abs(found.record.created - 3600.0 - found.record.guest_clock) < 5
    assert 0 <= found.record.paused_seconds < 5
    modes = {path.stat().st_mode & 0o777 for path in found.directory.iterdir()}
    assert (modes, found.directory.stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_the_guest_goes_on_afterwards() -> None:
    record = write_vm()
    with machine(record) as (live, fake):
        snapshots.save_snapshot(live, record, "one", clock_offset=0, deadline=Deadline.after(5))
        asked = [request["execute"] for request in fake.asked]
    assert asked.index("stop") < asked.index("migrate") < asked.index("cont")
    assert asked[-1] == "cont"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"migrate": Refusal("migration is blocked: a mounted 9p share")}, "a mounted 9p share"),
        ({"query_migrate": {"status": "failed", "error-desc": "it hurts"}}, "it hurts"),
    ],
)
def test_one_that_cannot_be_saved_leaves_nothing_and_the_guest_goes_on(
    answers: dict[str, Any], said: str
) -> None:
    record = write_vm()
    with machine(record, **answers) as (live, fake):
        with pytest.raises(HostError, match="no snapshot of the VM `db` could be saved") as caught:
            snapshots.save_snapshot(live, record, "one", clock_offset=0, deadline=Deadline.after(5))
        assert fake.asked[-1]["execute"] == "cont"
    assert said in str(caught.value.details)
    assert "runs on" in str(caught.value.hint)
    assert list(record.directory.snapshots.iterdir()) == []


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    record = write_vm()
    monkeypatch.setattr(snapshots, "copy_sparse", full)
    with pytest.raises(HostError, match="the disk is full") as caught:
        save(record)
    assert exit_code_of(caught.value) == 20
    assert "free some disk space" in str(caught.value.hint)
    assert list(record.directory.snapshots.iterdir()) == []


def test_no_room_is_told_before_the_guest_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_vm()
    monkeypatch.setattr(snapshots, "_DISK_RESERVE", 1 << 60)
    with machine(record) as (live, fake):
        with pytest.raises(HostError, match="no room for a snapshot"):
            snapshots.save_snapshot(live, record, "one", clock_offset=0, deadline=Deadline.after(5))
        assert "stop" not in [request["execute"] for request in fake.asked]


def test_a_new_one_replaces_the_old_of_that_tag() -> None:
    record = write_vm()
    save(record)
    record.directory.disk.write_text("another disk")
    save(record)
    assert find_snapshot("db", "one").disks[0][1].read_text() == "another disk"
    assert [path.name for path in record.directory.snapshots.iterdir()] == ["one"]


def test_they_are_listed_by_age_and_the_newest_is_meant_without_a_tag() -> None:
    record = write_vm()
    for tag in ("b", "a", "c"):
        save(record, tag)
    (record.directory.snapshots / "c" / "snapshot.json").write_text("{")
    assert [snapshot.record.tag for snapshot in list_snapshots("db")] == ["b", "a"]
    assert find_snapshot("db", None).record.tag == "a"
    assert all(snapshot.size > 0 for snapshot in list_snapshots("db"))


def test_an_unknown_one_is_told_with_those_there_are() -> None:
    record = write_vm()
    with pytest.raises(UsageError, match="has no snapshots") as caught:
        find_snapshot("db", None)
    assert "snapshot save db" in str(caught.value.hint)
    with pytest.raises(UsageError, match="has no snapshot `one`"):
        find_snapshot("db", "one")
    save(record, "one")
    with pytest.raises(UsageError, match="has no snapshot `two`") as caught:
        find_snapshot("db", "two")
    assert caught.value.hint == "it has one"
    assert exit_code_of(caught.value) == 2


def test_a_damaged_one_can_be_removed() -> None:
    record = write_vm()
    saved = save(record)
    (saved.directory / "snapshot.json").unlink()
    with pytest.raises(VmDamaged, match="the snapshot `one` of the VM `db`") as caught:
        find_snapshot("db", "one")
    assert "snapshot rm db one" in str(caught.value.hint)
    vm_snapshots.remove_snapshot("db", "one", emit=silent)
    assert not saved.directory.exists()
    with pytest.raises(UsageError):
        vm_snapshots.remove_snapshot("db", "one", emit=silent)


@pytest.mark.parametrize("tag", ["", ".x", "a/b", "..", "x" * 64])
def test_what_cannot_be_a_tag(tag: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a snapshot"):
        find_snapshot("db", tag)


def test_bases_stay_while_something_lies_on_them() -> None:
    def over(key: str) -> VmRecord:
        base = sample_record().directory.base(key)
        base.write_text("a base")
        disk = RootDisk(sample_record().directory.disk, base, "qcow2", Size.parse("8G"))
        return sample_record(plan=replace(sample_record().plan, disk=disk))

    write_vm()
    first, second = over("first"), over("second")
    save(first, "one")
    write_record(second)
    over("third")
    drop_unused_bases(second)
    assert [base.stem for base in sorted(second.directory.path.glob("base-*"))] == [
        "base-first",
        "base-second",
    ]
    vm_snapshots.remove_snapshot("db", "one", emit=silent)
    assert [base.stem for base in second.directory.path.glob("base-*")] == ["base-second"]


def test_only_a_running_vm_is_saved() -> None:
    write_vm()
    with pytest.raises(VmNotRunning):
        vm_snapshots.save_snapshot("db", None, force=False, emit=silent, deadline=Deadline.after(5))


def test_what_a_test_run_has_is_neither_saved_nor_restored() -> None:
    record = write_vm()
    save(record)
    deadline = Deadline.after(5)
    with (
        registry.holding("db", wait=False, run_id="x", emit=silent, deadline=deadline),
        pytest.raises(VmBusy, match="cannot be restored: the test run x"),
    ):
        vm_snapshots.restore_snapshot("db", "one", emit=silent, deadline=deadline)

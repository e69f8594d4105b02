"""Take snapshots of a long-lived VM, and go back to them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import Final

from vmrunner.config.units import Size
from vmrunner.errors import BootTimeout, GuestLost, UsageError
from vmrunner.events import Emit, phase
from vmrunner.guest.adjustment import Adjustment
from vmrunner.guest.clock import read_clock
from vmrunner.guest.key import LoginKey
from vmrunner.guest.preparation import Preparation
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.guest.undo import unmount_shares
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.signals import shielded
from vmrunner.machine import registry, snapshots
from vmrunner.machine.detached import machine_of
from vmrunner.machine.disk_exchange import DiskExchange
from vmrunner.machine.machine import RESTORED_ANSWERS_SECONDS
from vmrunner.machine.snapshots import Snapshot
from vmrunner.machine.vm import guest_of
from vmrunner.machine.vm_record import VmRecord, with_sockets, write_record
from vmrunner.run.vm_start import start_vm

_ANSWERS_SECONDS: Final = 60.0
_HELD_HINT: Final = "wait for its end"


def save_snapshot(name: str, tag: str | None, *, force: bool, emit: Emit, deadline: Deadline) -> Snapshot:
    """Save the running VM as `tag`, or as the present time; the guest stands still meanwhile.

    Raises UsageError where there is such a snapshot and no `force`, VmNotRunning, VmBusy, HostError.
    """
    tag = snapshots.check_tag(tag or time.strftime("%Y%m%d-%H%M%S"))
    with registry.changing(name, emit=emit):
        record = registry.find_running(name)
        registry.refuse_held(name, doing="saved", way_out=_HELD_HINT)
        if not force and (record.directory.snapshots / tag).exists():
            raise UsageError(
                f"the VM `{name}` has a snapshot `{tag}` already",
                hint="take another name, or add `--force` to replace it",
            )
        with phase(emit, "snapshot", f"Saving `{name}` as `{tag}`") as current:
            with closing(guest_of(record)) as guest:
                snapshot = _save(record, tag, guest, deadline)
            current.text = (
                f"{Size(snapshot.size).for_people()}; the guest stood still for "
                f"{snapshot.record.paused_seconds:.1f} s"
            )
        return snapshot


def restore_snapshot(name: str, tag: str | None, *, emit: Emit, deadline: Deadline) -> VmRecord:
    """Go back to a snapshot, the newest without a `tag`, whatever state the VM is in; what it was until now is lost.

    Raises UsageError where there is no such snapshot, VmBusy, BootError where QEMU does not take it: the VM is stopped
    then, with the disk that it had.
    """
    with registry.changing(name, emit=emit):
        record = registry.find(name)
        registry.refuse_held(name, doing="restored", way_out=_HELD_HINT)
        snapshot = snapshots.find_snapshot(name, tag)
        exchange = DiskExchange(snapshot.disks)
        with phase(emit, "disk", f"Going back to `{snapshot.record.tag}`"):
            exchange.prepare()
        registry.end_process(record.directory, record)
        stopped, key = record.changed(process=None, wanted="stopped"), record.login_key
        write_record(stopped)
        exchange.do()
        try:
            restored = _start(stopped, snapshot, emit=emit, deadline=deadline)
        except BaseException:
            with shielded():
                _go_back(stopped, key, exchange)
            raise
        exchange.keep()
        snapshots.drop_unused_bases(restored)
        return restored


def remove_snapshot(name: str, tag: str, *, emit: Emit) -> None:
    """Remove a snapshot. Raises UsageError where there is no such one."""
    with registry.changing(name, emit=emit):
        record = registry.find(name)
        snapshots.remove_snapshot(name, tag)
        snapshots.drop_unused_bases(record)


def _save(record: VmRecord, tag: str, guest: Guest, deadline: Deadline) -> Snapshot:
    within = deadline.within(_ANSWERS_SECONDS)
    try:
        guest.connect(within, is_up=True)
        unmount_shares(guest, deadline=within)
        offset = read_clock(guest, deadline=within).offset
        with machine_of(record, deadline=deadline) as machine:
            snapshot = snapshots.save_snapshot(machine, record, tag, clock_offset=offset, deadline=deadline)
        shift = Preparation(clock_shift=snapshot.record.paused_seconds)
        guest.execute(shift.command(), deadline=deadline.within(_ANSWERS_SECONDS))
    except (ConnectionLost, BootTimeout) as error:
        raise GuestLost(
            f"the guest of the VM `{record.name}` does not answer, so it cannot be saved",
            hint=f"`vmrunner logs {record.name}` may say why",
            details=str(error),
        ) from error
    return snapshot


def _start(record: VmRecord, snapshot: Snapshot, *, emit: Emit, deadline: Deadline) -> VmRecord:
    saved = snapshot.record
    key = snapshot.login_key
    write_atomically(record.directory.login_key, key.private)
    plan = with_sockets(saved.plan, record.directory)
    return start_vm(
        record.changed(plan=plan, public_key=key.public, template_key=saved.template_key),
        replace(plan, incoming=True), saved=snapshot.saved, start="restored",
        answers_in=RESTORED_ANSWERS_SECONDS, preparation=Preparation(), adjustment=Adjustment(), emit=emit,
        deadline=deadline,
    )  # fmt: skip


def _go_back(record: VmRecord, key: LoginKey, exchange: DiskExchange) -> None:
    """The VM as it was, without its memory."""
    write_atomically(record.directory.login_key, key.private)
    exchange.undo()
    write_record(record)

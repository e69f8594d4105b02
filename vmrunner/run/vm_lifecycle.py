"""The life of a long-lived VM: bring it up, stop it, make it clean again, remove it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from vmrunner.config.load import Loaded
from vmrunner.errors import GuestHalted, UsageError, VmrunnerError
from vmrunner.events import Emit, Note, phase
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import private
from vmrunner.host.process_identity import ProcessIdentity
from vmrunner.host.signals import shielded
from vmrunner.image.store import hold
from vmrunner.machine import registry
from vmrunner.machine.snapshots import drop_unused_bases
from vmrunner.machine.vm import guest_of
from vmrunner.machine.vm_record import VmRecord, VmState, check_name, write_record
from vmrunner.run.vm_disk import grow_stopped
from vmrunner.run.vm_settings import larger_disk, refuse_other_settings
from vmrunner.run.vm_start import VmOrder, order_again, order_vm, start_clean, start_from_disk

_END_GRACE_SECONDS: Final = 2.0
_FORCE_HINT: Final = "wait for its end, or add `--force`"


def bring_up(
    name: str, loaded: Loaded, *, emit: Emit, deadline: Deadline, owner: ProcessIdentity | None = None
) -> VmRecord:
    """Have the VM run: made where there is none, booted from its disk where it does not run.

    With an `owner` a new VM is removed when that process has ended (see `registry.reap_abandoned`). Raises ConfigError
    where the VM has other settings than those that were given.
    """
    check_name(name)
    registry.reap_abandoned(emit)
    with registry.changing(name, emit=emit):
        if not registry.exists(name):
            return _create(
                order_vm(name, loaded.config, owner=owner, emit=emit, deadline=deadline), emit, deadline
            )
        record = registry.find(name)
        larger = larger_disk(record, loaded)
        refuse_other_settings(record, loaded, leave_out={"disk"} if larger else set())
        match record.state:
            case VmState.RUNNING:
                emit(Note(f"the VM `{name}` is running already"))
                return record
            case VmState.STOPPED:
                pass
            case VmState.DIED:
                emit(
                    Note(
                        f"the VM `{name}` had died ({record.end}); it boots from its disk as that was",
                        "warning",
                    )
                )
        registry.end_process(record.directory, record)
        if larger:
            record = grow_stopped(record, larger, deadline=deadline)
        return start_from_disk(record, boot_timeout=loaded.config.boot_timeout, emit=emit, deadline=deadline)


def stop_vm(name: str, *, timeout: float, force: bool, emit: Emit) -> VmRecord:
    """Shut the guest down and keep the disk; what does not shut down in `timeout` seconds is ended, with a note."""
    with registry.changing(name, emit=emit):
        record = registry.find(name)
        if not force:
            registry.refuse_held(name, doing="stopped", way_out=_FORCE_HINT)
        match record.state:
            case VmState.STOPPED:
                emit(Note(f"the VM `{name}` is stopped already"))
            case VmState.DIED:
                emit(Note(f"the VM `{name}` had died ({record.end}); its disk is kept"))
            case VmState.RUNNING:
                _shut_down(record, timeout=timeout, emit=emit)
        registry.end_process(record.directory, record)
        stopped = record.changed(process=None, wanted="stopped")
        write_record(stopped)
        return stopped


def reset_vm(name: str, *, force: bool, emit: Emit, deadline: Deadline) -> VmRecord:
    """Back to the clean state with the same name and settings, whatever state it is in; its snapshots stay."""
    with registry.changing(name, emit=emit):
        record = registry.find(name)
        if not force:
            registry.refuse_held(name, doing="reset", way_out=_FORCE_HINT)
        order = order_again(record, deadline=deadline)
        with hold(order.image):
            registry.end_process(record.directory, record)
            # Until it runs again it is a VM that does not: whatever happens now, `up` or `reset` goes on from here.
            write_record(record.changed(process=None, wanted="stopped"))
            clean = start_clean(order, emit=emit, deadline=deadline)
        drop_unused_bases(clean)
        return clean


def remove_vms(names: Sequence[str], *, force: bool, emit: Emit) -> None:
    """Remove VMs with all they have; first of all every reason not to is looked for.

    Raises UsageError where one runs or does not exist, VmBusy where a test run has it, VmDamaged where it cannot be read.
    With `force` none of that is a reason.
    """
    doomed = [name for name in names if _may_be_removed(name, force=force, emit=emit)]
    for name in doomed:
        with registry.changing(name, emit=emit):
            if _may_be_removed(name, force=force, emit=emit):
                registry.erase(name)


def _may_be_removed(name: str, *, force: bool, emit: Emit) -> bool:
    if force:
        if not registry.exists(name):
            emit(Note(f"there is no VM `{name}`"))
        return registry.exists(name)
    record = registry.find(name)
    registry.refuse_held(name, doing="removed", way_out=_FORCE_HINT)
    if record.state is VmState.RUNNING:
        raise UsageError(
            f"the VM `{name}` is running", hint=f"`vmrunner stop {name}` first, or add `--force`"
        )
    return True


def _create(order: VmOrder, emit: Emit, deadline: Deadline) -> VmRecord:
    registry.erase(order.name)  # what a killed `up` may have left
    private(order.directory.path)
    try:
        with hold(order.image):
            return start_clean(order, emit=emit, deadline=deadline)
    except BaseException:
        with shielded():
            registry.erase(order.name)
        raise


def _shut_down(record: VmRecord, *, timeout: float, emit: Emit) -> None:
    """Ask the guest's systemd to power off, and wait; QEMU ends with it."""
    deadline = Deadline.after(timeout)
    assert record.process is not None
    with phase(emit, "stop", f"Shutting `{record.name}` down") as current:
        reason = ""
        try:
            with closing(guest_of(record)) as guest:
                guest.connect(deadline, is_up=True)
                guest.execute(["systemctl", "poweroff"], deadline=deadline)
        except GuestHalted:
            raise
        except (VmrunnerError, ConnectionLost) as error:
            reason = f": {error}"
        if record.process.wait(deadline.remaining):
            return
        current.text = "ended by force"
        emit(
            Note(f"the VM `{record.name}` did not shut down in {timeout:g} s and is ended{reason}", "warning")
        )
        record.process.end(grace=_END_GRACE_SECONDS)

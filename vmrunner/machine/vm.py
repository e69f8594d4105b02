"""Get into a long-lived VM that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import BootTimeout, GuestLost, VmBusy, VmNotRunning
from vmrunner.guest.ssh import Endpoint, Guest
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import tail
from vmrunner.machine.detached import wake
from vmrunner.machine.registry import find_running
from vmrunner.machine.vm_record import VmRecord

CONSOLE_UNIT = "serial-getty@ttyS0.service"
"""The guest's unit that gives whoever sits at the console a shell, as root, after Enter."""

_SERIAL_LINES = 20
# A guest that runs answers in 0.1 to 1 s, emulated and on a busy host too.
_SOON_SECONDS = 3.0


@dataclass(frozen=True)
class Attached:
    """A VM and its guest, which is logged in to."""

    record: VmRecord
    guest: Guest


@contextmanager
def attached(name: str, *, deadline: Deadline) -> Iterator[Attached]:
    """Log in to the VM `name`; it runs on when the block ends.

    Raises UsageError where there is no such VM, VmNotRunning where it does not run or dies meanwhile, GuestLost where
    its guest does not answer, GuestHalted where QEMU has stopped it for want of room on this host's disk.
    """
    record = find_running(name)
    with closing(guest_of(record)) as guest:
        try:
            log_in(guest, record, deadline)
        except BootTimeout as error:
            raise GuestLost(
                f"the guest of the VM `{name}` does not answer over SSH",
                hint=f"`vmrunner console {name}` works without a network; `vmrunner reset {name}` starts it afresh",
                details=f"{error.details}\nlast lines of the serial console:\n"
                f"{tail(record.directory.serial_log, lines=_SERIAL_LINES)}",
            ) from error
        yield Attached(record, guest)


def log_in(guest: Guest, record: VmRecord, deadline: Deadline) -> None:
    """Log in to the guest of a VM that runs; where it does not answer soon, QEMU may have stopped it, and is asked.

    Raises as `attached` does, and BootTimeout.
    """
    try:
        guest.connect(deadline.within(_SOON_SECONDS), is_up=True)
    except BootTimeout:
        with suppress(VmBusy):
            wake(record, deadline=deadline)
        guest.connect(deadline, is_up=True)


def start_login_at_console(name: str, *, deadline: Deadline) -> None:
    """Have the guest listen at its serial console; none does before somebody wants it, which keeps booting short.

    Raises as `attached` does, and ConnectionLost.
    """
    with attached(name, deadline=deadline) as vm:
        vm.guest.execute(["systemctl", "start", CONSOLE_UNIT], deadline=deadline)


def guest_of(record: VmRecord) -> Guest:
    """The guest of a VM, not connected yet."""

    def check_alive() -> None:
        if record.process is None or not record.process.alive():
            raise VmNotRunning(
                f"the VM `{record.name}` died: {record.end}",
                hint=f"`vmrunner up {record.name}` boots it again from its disk",
            )

    return Guest(Endpoint(record.ssh_port, record.login_key), alive=check_alive)


def console_socket(name: str) -> Path:
    """Where the serial console of a running VM listens. Raises as `attached` does."""
    plan = find_running(name).plan
    assert plan.long_lived is not None
    return plan.long_lived.console_socket

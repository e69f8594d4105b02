"""Get into a long-lived VM that runs."""

from __future__ import annotations

import time
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
from vmrunner.machine.usage import cpu_seconds
from vmrunner.machine.vm_record import VmRecord

CONSOLE_UNIT = "serial-getty@ttyS0.service"
"""The guest's unit that gives whoever sits at the console a shell, as root, after Enter."""

_SERIAL_LINES = 20
_LOOK_SECONDS = 2.0
_ASK_SECONDS = 1.0
# Two of the kernel's ticks, in which it counts (proc_pid_stat(5)).
_LEAST_CPU_SECONDS = 0.02


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
            guest.connect(deadline, is_up=True)
        except BootTimeout as error:
            raise GuestLost(
                f"the guest of the VM `{name}` does not answer over SSH",
                hint=f"`vmrunner console {name}` works without a network; `vmrunner reset {name}` starts it afresh",
                details=f"{error.details}\nlast lines of the serial console:\n"
                f"{tail(record.directory.serial_log, lines=_SERIAL_LINES)}",
            ) from error
        yield Attached(record, guest)


def start_login_at_console(name: str, *, deadline: Deadline) -> None:
    """Have the guest listen at its serial console; none does before somebody wants it, which keeps booting short.

    Raises as `attached` does, and ConnectionLost.
    """
    with attached(name, deadline=deadline) as vm:
        vm.guest.execute(["systemctl", "start", CONSOLE_UNIT], deadline=deadline)


def guest_of(record: VmRecord) -> Guest:
    """The guest of a VM, not connected yet. What waits for it notices when the VM dies, and when QEMU stops it."""
    return Guest(Endpoint(record.ssh_port, record.login_key), alive=_Watch(record).look)


class _Watch:
    """Whether a VM goes on, asked often while something is awaited of its guest.

    QEMU's monitor, which others may need, is asked only where the machine uses no CPU time: a guest that runs always
    does, an idle one too (5 % of a CPU under TCG, measured).
    """

    def __init__(self, record: VmRecord) -> None:
        self._record = record
        self._next = 0.0
        self._used = float("-inf")

    def look(self) -> None:
        """Raise VmNotRunning where QEMU is gone, GuestHalted where it has stopped the guest and will not go on."""
        process = self._record.process
        if process is None or not process.alive():
            raise VmNotRunning(
                f"the VM `{self._record.name}` died: {self._record.end}",
                hint=f"`vmrunner up {self._record.name}` boots it again from its disk",
            )
        if time.monotonic() >= self._next:
            with suppress(VmBusy, FileNotFoundError, ProcessLookupError):
                if not self._has_worked(process.pid):
                    wake(self._record, deadline=Deadline.after(_ASK_SECONDS))
            self._next = time.monotonic() + _LOOK_SECONDS

    def _has_worked(self, pid: int) -> bool:
        before, self._used = self._used, cpu_seconds(Path("/proc") / str(pid) / "stat")
        return self._used - before >= _LEAST_CPU_SECONDS


def console_socket(name: str) -> Path:
    """Where the serial console of a running VM listens. Raises as `attached` does."""
    plan = find_running(name).plan
    assert plan.long_lived is not None
    return plan.long_lived.console_socket

"""Machines that outlive the process which started them: start one, and come back to one that runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vmrunner.errors import BootError, VmBusy, VmNotRunning
from vmrunner.guest.key import LoginKey
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import tail
from vmrunner.host.signals import shielded
from vmrunner.machine.arguments import qemu_arguments
from vmrunner.machine.device_state import SavedState
from vmrunner.machine.machine import Machine, MachineState, hand_over_host_key
from vmrunner.machine.memory_file import let_go_of_memory
from vmrunner.machine.monitor import CommandRefused, MonitorLost, open_monitor
from vmrunner.machine.placement import place
from vmrunner.machine.plan import MachinePlan
from vmrunner.machine.qemu_process import ForeignQemu, Process, start_detached_qemu
from vmrunner.machine.vm_record import VmRecord

_CONNECT_SECONDS = 20.0
_POLL_SECONDS = 0.005
_LOAD_SECONDS = 120.0
_TERMINATE_SECONDS = 2.0
# What the guest asked for is tried again at once.
_HALTS_AGAIN_SECONDS = 0.3


@contextmanager
def start_detached(
    plan: MachinePlan,
    *,
    login_key: LoginKey,
    qemu_log: Path,
    deadline: Deadline,
    saved: SavedState | None = None,
) -> Iterator[Machine]:
    """Start the machine of a `long_lived` plan on the disk that is there, and load `saved` into it.

    When the block ends well the machine runs on, and only our connections to it end; when it fails, it is ended. Raises
    QemuExited with QEMU's own words.
    """
    assert plan.long_lived is not None
    for path in (plan.long_lived.monitor_socket, plan.long_lived.console_socket):
        path.unlink(missing_ok=True)
    hand_over_host_key(plan, login_key)
    process = start_detached_qemu(qemu_arguments(plan), log_path=qemu_log)
    try:
        try:
            with _connected(plan, process, login_key, deadline) as machine:
                let_go_of_memory(plan)
                place(machine.monitor, machine.pid, plan)
                if saved:
                    machine.load(saved, deadline=deadline.within(_LOAD_SECONDS))
                yield machine
        except (MonitorLost, CommandRefused) as error:
            if process.wait(1):
                raise process.exited_error("before the machine started") from error
            raise BootError(
                f"QEMU does not answer on its monitor: {error}", details=tail(qemu_log)
            ) from error
    except BaseException:
        with shielded():
            process.terminate(_TERMINATE_SECONDS)
        raise
    process.release()


@contextmanager
def machine_of(record: VmRecord, *, deadline: Deadline) -> Iterator[Machine]:
    """A VM that runs, with its monitor; it runs on when the block ends, unless the block has stopped it.

    Where QEMU had stopped its guest for want of room on this host's disk, it is let go on; whether that helped, its
    `check_alive` knows.

    QEMU speaks with one client at a time: raises VmBusy where another command has the monitor, VmNotRunning where the
    VM does not run.
    """
    if record.process is None or not record.process.alive():
        raise VmNotRunning(
            f"the VM `{record.name}` does not run", hint=f"`vmrunner up {record.name}` starts it"
        )
    process = ForeignQemu(record.process, record.directory.qemu_log)
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(_connected(record.plan, process, record.login_key, deadline))
            machine.go_on(deadline=deadline)
        except (MonitorLost, CommandRefused) as error:
            raise VmBusy(
                f"QEMU of the VM `{record.name}` does not answer on its monitor: {error}",
                hint="another command may be speaking with it; try again when it has ended",
            ) from error
        machine.state = MachineState.READY
        machine.is_up = True
        yield machine


def wake(record: VmRecord, *, deadline: Deadline) -> None:
    """Have a VM go on whose guest QEMU had stopped, as `machine_of` does.

    Raises GuestHalted where QEMU stops it again, and as `machine_of` does.
    """
    with machine_of(record, deadline=deadline) as machine:
        patience = deadline.within(_HALTS_AGAIN_SECONDS)
        while machine.was_halted and patience.pause(_POLL_SECONDS):
            machine.check_alive()


@contextmanager
def _connected(
    plan: MachinePlan, process: Process, login_key: LoginKey, deadline: Deadline
) -> Iterator[Machine]:
    assert plan.long_lived is not None
    within = deadline.within(_CONNECT_SECONDS)
    with (
        _monitor_socket(plan.long_lived.monitor_socket, process, within) as endpoint,
        open_monitor(endpoint, deadline=within) as monitor,
    ):
        machine = Machine(plan, process, monitor, login_key)
        try:
            yield machine
        finally:
            machine.guest.close()


@contextmanager
def _monitor_socket(path: Path, process: Process, deadline: Deadline) -> Iterator[socket.socket]:
    """A connection to QEMU's monitor, as soon as QEMU listens. Raises MonitorLost where it never does."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as endpoint:
            try:
                endpoint.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                last = error
            else:
                yield endpoint
                return
        if process.ended or not deadline.pause(_POLL_SECONDS):
            raise MonitorLost(f"nobody listens at {path}") from last

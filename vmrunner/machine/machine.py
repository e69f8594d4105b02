"""One live machine: the QEMU process, its monitor, and the guest in it."""

from __future__ import annotations

import contextlib
import enum
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from vmrunner.errors import BootError, BootTimeout
from vmrunner.guest.key import LoginKey
from vmrunner.guest.preparation import Preparation
from vmrunner.guest.ssh import ConnectionLost, Endpoint, Guest
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import tail
from vmrunner.host.signals import shielded
from vmrunner.machine.arguments import qemu_arguments
from vmrunner.machine.device_state import SavedState, StateNotTransferred, load_state, resume
from vmrunner.machine.disk_files import copy_overlay, make_extra_disks, make_overlay
from vmrunner.machine.forwarded_ports import read_forwards
from vmrunner.machine.health import Demise, demise_by_events, demise_by_exit, halt_by_events
from vmrunner.machine.memory_file import copy_memory, let_go_of_memory, memory_from
from vmrunner.machine.monitor import CommandRefused, Monitor, MonitorLost, open_monitor
from vmrunner.machine.placement import place, release
from vmrunner.machine.plan import MachinePlan, with_credential
from vmrunner.machine.qemu_process import Process, start_qemu
from vmrunner.machine.templates import Template

log = logging.getLogger(__name__)

RESTORED_ANSWERS_SECONDS = 30.0
"""A restored guest answers within a second; one that does not in this time never will."""

_QMP_SECONDS = 20.0
# Loading takes 0.02 to 0.05 s (measured), and reads next to nothing.
_LOAD_SECONDS = 20.0
_LAST_EVENTS_SECONDS = 0.5
# A kernel panic with its call trace takes about 30.
_SERIAL_LINES = 40
# A panic with its call trace, and what the kernel still prints after it.
_LONGEST_PANIC_LINES = 200
# Budgets of the stop ladder: QMP `quit`, SIGTERM; SIGKILL needs none.
_QUIT_SECONDS = 2.0
_TERMINATE_SECONDS = 2.0


class MachineState(enum.Enum):
    """Where a machine is in its life."""

    STARTED = "started"
    READY = "ready"
    STOPPED = "stopped"


class Machine:
    """A running QEMU with its guest. Made by `open_machine`.

    `clock_shift` is by how many seconds a restored guest's clock is late; its `Preparation` sets that right. `is_up` is
    whether the guest is known to have booted, `was_halted` whether QEMU had stopped it when we came. `forwards` are the ports of this host that lead into it besides `ssh_port`.
    """

    def __init__(self, plan: MachinePlan, process: Process, monitor: Monitor, login_key: LoginKey) -> None:
        self.plan = plan
        self.state = MachineState.STARTED
        self.monitor = monitor
        self._process = process
        self.clock_shift = 0.0
        self.is_up = False
        self.was_halted = False
        ssh, *others = read_forwards(monitor, deadline=Deadline.after(_QMP_SECONDS))
        self.ssh_port = ssh.host_port
        self.forwards = tuple(others)
        self.guest = Guest(Endpoint(self.ssh_port, login_key), alive=self.check_alive)

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def load(self, saved: SavedState, *, deadline: Deadline) -> None:
        """Become what was saved, and run.

        Raises QemuExited where QEMU does not take it, with its own words.
        """
        try:
            load_state(self.monitor, saved.path, memory_apart=saved.memory_apart, deadline=deadline)
            resumed_at = resume(self.monitor, deadline=deadline)
        except (StateNotTransferred, CommandRefused, MonitorLost) as error:
            if self._process.wait(1):
                raise self._process.exited_error("while its saved state was loaded") from error
            raise BootError(f"the saved state could not be loaded: {error}") from error
        self.is_up = True
        self.clock_shift = self.plan.clock_at_start(resumed_at) - saved.guest_clock

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until the guest lets us log in.

        Raises BootTimeout with the end of the serial log, BootError where the machine died on the way.
        """
        try:
            self.guest.connect(deadline, is_up=self.is_up)
        except BootTimeout as error:
            raise BootTimeout(
                error.message,
                hint="see the serial log; a slow host may need a longer `boot-timeout`",
                details=f"{error.details}\nlast lines of the serial console:\n{self.serial_tail()}",
            ) from error
        self.state = MachineState.READY

    def prepare(self, preparation: Preparation, *, deadline: Deadline) -> None:
        """Do what the guest has to have done before it is used by anybody. Raises BootError."""
        command = preparation.command()
        if not command:
            return
        try:
            done = self.guest.execute(command, deadline=deadline)
        except ConnectionLost as error:
            raise BootError(f"the guest was lost as soon as it had answered: {error}") from error
        if done.code:
            raise BootError("the guest's clock and names could not be set", details=done.stderr.strip())

    def check_alive(self) -> None:
        """Raise the error that says what ended or stopped this machine, if anything did."""
        demise = demise_by_events(self.monitor.events)
        if demise is None and self._process.ended:
            demise = self._demise_of_exited()
        if demise:
            raise demise.as_error(
                booting=self.state is MachineState.STARTED,
                serial_tail=tail(self.plan.serial_log, lines=_LONGEST_PANIC_LINES),
                defective=self.plan.may_break_booting,
            )
        then = ", then any command for the VM lets it go on" if self.plan.long_lived else ""
        way_out = f"free some space where {self.plan.disk.overlay.parent} is{then}"
        halt = halt_by_events(self.monitor.events, way_out=way_out)
        if halt:
            raise halt

    def go_on(self, *, deadline: Deadline) -> None:
        """Let QEMU try again what this host's disk did not do, where it stopped the guest over that."""
        self.was_halted = self.monitor.execute("query-status", deadline=deadline)["status"] == "io-error"
        if self.was_halted:
            resume(self.monitor, deadline=deadline)

    def serial_tail(self) -> str:
        """The last lines of the guest's console."""
        return tail(self.plan.serial_log, lines=_SERIAL_LINES)

    def stop(self) -> None:
        """End the machine without asking the guest: QMP `quit`, then SIGTERM, then SIGKILL, each with a wait."""
        if self.state is MachineState.STOPPED:
            return
        self.state = MachineState.STOPPED
        self.guest.close()
        with contextlib.suppress(MonitorLost, CommandRefused):
            self.monitor.execute("quit", deadline=Deadline.after(_QUIT_SECONDS))
        if not self._process.wait(_QUIT_SECONDS):
            log.debug("QEMU did not quit in %s s", _QUIT_SECONDS)
            self._process.terminate(_TERMINATE_SECONDS)

    def _demise_of_exited(self) -> Demise:
        """The process is gone, but its last events may still be on their way to us."""
        patience = Deadline.after(_LAST_EVENTS_SECONDS)
        while patience.pause(0.02):
            demise = demise_by_events(self.monitor.events)
            if demise:
                return demise
        return demise_by_exit(self._process.exit_code)


@contextmanager
def open_machine(
    plan: MachinePlan,
    *,
    login_key: LoginKey,
    qemu_log: Path,
    deadline: Deadline,
    template: Template | None = None,
) -> Iterator[Machine]:
    """Make the overlay, start QEMU and negotiate QMP; the machine is stopped when the block ends, however it ends.

    With a `template` (and a plan that `restored` made) it is restored and runs, else it boots.

    Raises QemuExited with QEMU's own words, ImageError where the overlay cannot be made.
    """
    if template:
        copy_overlay(template, plan.disk.overlay)
        copy_memory(template, plan)
    else:
        make_overlay(plan.disk, qemu_img=plan.qemu.with_name("qemu-img"), deadline=deadline)
    make_extra_disks(plan, deadline=deadline)
    hand_over_host_key(plan, login_key)
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.callback(ours.close)
        with theirs:
            arguments = qemu_arguments(plan, monitor_fd=theirs.fileno())
            process = start_qemu(arguments, monitor_end=theirs, log_path=qemu_log)
        stack.callback(process.terminate, _TERMINATE_SECONDS)
        try:
            monitor = stack.enter_context(open_monitor(ours, deadline=deadline.within(_QMP_SECONDS)))
            machine = Machine(plan, process, monitor, login_key)
        except (MonitorLost, CommandRefused) as error:
            if process.wait(1):
                raise process.exited_error("before the machine started") from error
            raise BootError(
                f"QEMU does not answer on its monitor: {error}", details=tail(qemu_log)
            ) from error
        try:
            let_go_of_memory(plan)
            place(monitor, machine.pid, plan)
            if template:
                machine.load(template.saved, deadline=deadline.within(_LOAD_SECONDS))
            yield machine
        finally:
            with shielded():
                machine.stop()
                release(plan)


def hand_over_host_key(plan: MachinePlan, login_key: LoginKey) -> None:
    """Put the guest's host key where QEMU will read it: in its arguments, everybody on this host could."""
    plan.host_key_file.touch(0o600)
    plan.host_key_file.write_text(login_key.host_key_credential)


def restored(plan: MachinePlan, template: Template) -> MachinePlan:
    """The plan of a machine like `plan` that comes from the template instead of a boot."""
    return replace(
        with_credential(plan, template.record.public_key),
        disk=replace(plan.disk, backing_file=template.disk, backing_format="qcow2"),
        memory_file=memory_from(template, plan),
        incoming=True,
    )

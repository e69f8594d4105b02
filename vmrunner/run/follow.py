"""Follow a run while it happens: hand on what nextest prints, watch the machine, wait for the unit to end."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import NoReturn

from vmrunner.errors import GuestError, GuestLost, Interrupted, RunTimeout, VmrunnerError
from vmrunner.events import Emit, Note, Output, phase
from vmrunner.guest import inbox
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.guest.unit import UnitRun, UnitStatus
from vmrunner.host.deadline import Deadline
from vmrunner.machine.machine import Machine
from vmrunner.run.directory import RunDirectory

log = logging.getLogger(__name__)

LOG_LIMIT = 2 << 30
"""Bytes that nextest and the tests may print in one run; a guest must not be able to fill the host's disk."""

_POLL_SECONDS = 0.04
_WIND_DOWN_SECONDS = 15.0
_SHUTDOWN_SECONDS = 20.0
_CHUNK = 1 << 20


@dataclass
class LogTail:
    """The end of a file that the guest appends to, handed on as it grows."""

    run: RunDirectory
    emit: Emit

    def __post_init__(self) -> None:
        self._open = [
            ("stderr", os.open(self.run.nextest_log, os.O_RDONLY | os.O_CLOEXEC)),
            ("stdout", os.open(self.run.stdout_log, os.O_RDONLY | os.O_CLOEXEC)),
        ]
        self._handed_on = 0

    def hand_on(self) -> None:
        """Emit what is new. Raises GuestError where the logs grow past their limit."""
        for stream, fd in self._open:
            while chunk := os.read(fd, _CHUNK):
                self._handed_on += len(chunk)
                self.emit(Output("stderr" if stream == "stderr" else "stdout", chunk))
                if self._handed_on > LOG_LIMIT:
                    raise GuestError(
                        "the tests print without end: their log passed 2 GiB",
                        details=str(self.run.nextest_log),
                    )

    def close(self) -> None:
        """Hand on the rest and let go of the files."""
        try:
            self.hand_on()
        finally:
            for _, fd in self._open:
                os.close(fd)


def follow_unit(machine: Machine, run: RunDirectory, *, deadline: Deadline, emit: Emit) -> UnitStatus:
    """Start the unit and stay with it to its end.

    Raises RunTimeout where the time is up and Interrupted on a signal, both after nextest was given a moment to cancel
    and to write its report; GuestError where the machine or the connection is gone for good.
    """
    tail = LogTail(run, emit)
    try:
        with phase(emit, "mount", "Handing the tests to the guest"):
            unit = UnitRun(machine.guest, deadline=deadline)
            status = _until(unit, machine, tail, deadline, run, only_to_start=True)
        with phase(emit, "unit", "Running the tests"):
            if status is None:
                status = _until(unit, machine, tail, deadline, run)
            assert status is not None
            if status.cut_short:
                _raise_shutdown(machine, deadline)
        return status
    finally:
        tail.close()


def started(run: RunDirectory) -> bool:
    """Whether the guest says that it is about to start nextest."""
    return os.path.lexists(run.out / inbox.STARTED_MARK)


def _until(
    unit: UnitRun,
    machine: Machine,
    tail: LogTail,
    deadline: Deadline,
    run: RunDirectory,
    *,
    only_to_start: bool = False,
) -> UnitStatus | None:
    try:
        while not deadline.passed:
            machine.check_alive()
            tail.hand_on()
            status = unit.poll()
            if status or (only_to_start and started(run)):
                return status
            deadline.pause(_POLL_SECONDS)
    except Interrupted:
        tail.emit(Note("interrupted: nextest is asked to stop; once more to end it at once", "warning"))
        _wind_down(unit, machine, tail)
        raise
    tail.emit(Note("the time is up: nextest is asked to stop", "warning"))
    _wind_down(unit, machine, tail)
    raise RunTimeout(
        "the time for the run was up while the tests ran",
        hint="give it more with `--timeout`, or set nextest's `slow-timeout` to find the test that hangs",
    )


def _raise_shutdown(machine: Machine, deadline: Deadline) -> NoReturn:
    """A guest stops its units before itself: wait for its end, which tells a reboot from a shutdown."""
    patience = deadline.within(_SHUTDOWN_SECONDS)
    while patience.pause(_POLL_SECONDS):
        machine.check_alive()
    raise GuestLost(
        "the guest began to shut down in the middle of the run",
        hint="did a test do that?",
        details=f"last lines of the serial console:\n{machine.serial_tail()}",
    )


def _wind_down(unit: UnitRun, machine: Machine, tail: LogTail) -> None:
    """Let nextest cancel its tests, say so, and write its report; not for long."""
    grace = Deadline.after(_WIND_DOWN_SECONDS)
    try:
        unit.interrupt(deadline=grace)
        while not grace.passed:
            machine.check_alive()
            tail.hand_on()
            if unit.poll():
                return
            grace.pause(_POLL_SECONDS)
    except (ConnectionLost, VmrunnerError) as error:
        log.debug("wind down: %s", error)

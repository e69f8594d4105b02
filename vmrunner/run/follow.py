"""Follow a run while it happens: hand on what nextest prints, watch the machine, wait for the unit to end."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from vmrunner.config.units import Size
from vmrunner.errors import GuestError, GuestLost, Interrupted, RunTimeout, VmrunnerError
from vmrunner.events import Emit, Note, Output, phase
from vmrunner.guest import inbox
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.guest.unit import UnitRun, UnitStatus
from vmrunner.host.deadline import Deadline
from vmrunner.machine.machine import Machine
from vmrunner.nextest.junit import load_parser
from vmrunner.run.directory import RunDirectory
from vmrunner.run.seat import ReadySeat

log = logging.getLogger(__name__)

LOG_LIMIT = Size.parse("2G")
"""Bytes that nextest and the tests may print in one run where nothing else is asked for; a guest must not be able to
fill the host's disk."""

_POLL_SECONDS = 0.015
_WIND_DOWN_SECONDS = 15.0
_SHUTDOWN_SECONDS = 20.0
_CHUNK = 1 << 20


Cancellation = threading.Event
"""Set by another thread to end a run early."""


INTERRUPTED = Note("interrupted: nextest is asked to stop; once more to end it at once", "warning")
"""What is said to a person who pressed Ctrl-C."""


class Cancelled(Exception):
    """Another thread ended the run."""


@dataclass
class LogTail:
    """The end of a file that the guest appends to, handed on as it grows."""

    run: RunDirectory
    emit: Emit
    limit: Size = LOG_LIMIT

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
                if self._handed_on > self.limit:
                    raise GuestError(
                        f"the tests print without end: their log passed {self.limit.for_people()}",
                        hint="is that what they should do? then give them more with `--log-limit`",
                        details=str(self.run.nextest_log),
                    )

    def close(self) -> None:
        """Hand on the rest and let go of the files."""
        try:
            self.hand_on()
        finally:
            for _, fd in self._open:
                os.close(fd)


def follow_unit(
    seat: ReadySeat,
    *,
    deadline: Deadline,
    emit: Emit,
    cancellation: Cancellation,
    looks: Sequence[Callable[[], None]] = (),
    log_limit: Size = LOG_LIMIT,
) -> UnitStatus:
    """Start the unit and stay with it to its end; `looks` are called all the while.

    Raises RunTimeout where the time is up, Interrupted on a signal and Cancelled where another thread wants it, all after
    nextest was given a moment to cancel and to write its report; GuestError where the machine or the connection is gone for good.
    """
    tail = LogTail(seat.run, emit, log_limit)
    try:
        with phase(emit, "mount", "Handing the tests to the guest"):
            unit = UnitRun(
                seat.machine.guest,
                prelude=seat.prelude,
                way_out=seat.way_out,
                afterwards=seat.afterwards,
                deadline=deadline,
            )
            load_parser()
            following = _Following(unit, seat, tail, deadline, cancellation, looks)
            status = following.until_it_ends(or_starts=True)
        with phase(emit, "unit", "Running the tests"):
            if status is None:
                status = following.until_it_ends()
            assert status is not None
            if status.cut_short:
                _raise_shutdown(seat.machine, deadline)
        return status
    finally:
        tail.close()


def started(run: RunDirectory) -> bool:
    """Whether the guest says that it is about to start nextest."""
    return os.path.lexists(run.out / inbox.STARTED_MARK)


@dataclass
class _Following:
    unit: UnitRun
    seat: ReadySeat
    tail: LogTail
    deadline: Deadline
    cancellation: Cancellation
    looks: Sequence[Callable[[], None]]

    def until_it_ends(self, *, or_starts: bool = False) -> UnitStatus | None:
        """Watch everything until the unit has ended (or, on request, nextest is about to start: None then)."""
        try:
            while not self.deadline.passed and not self.cancellation.is_set():
                self.seat.machine.check_alive()
                self.tail.hand_on()
                for look in self.looks:
                    look()
                status = self.unit.poll()
                if status or (or_starts and started(self.seat.run)):
                    return status
                self.deadline.pause(_POLL_SECONDS)
        except Interrupted:
            self.tail.emit(INTERRUPTED)
            self._wind_down()
            raise
        if self.cancellation.is_set():
            self._wind_down()
            raise Cancelled
        self.tail.emit(Note("the time is up: nextest is asked to stop", "warning"))
        self._wind_down()
        raise RunTimeout(
            "the time for the run was up while the tests ran",
            hint="give it more with `--timeout`, or set nextest's `slow-timeout` to find the test that hangs",
        )

    def _wind_down(self) -> None:
        """Let nextest cancel its tests, say so, and write its report; not for long."""
        grace = Deadline.after(_WIND_DOWN_SECONDS)
        try:
            self.unit.interrupt(deadline=grace)
            while not grace.passed:
                self.seat.machine.check_alive()
                self.tail.hand_on()
                if self.unit.poll():
                    return
                grace.pause(_POLL_SECONDS)
        except (ConnectionLost, VmrunnerError) as error:
            log.debug("wind down: %s", error)


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

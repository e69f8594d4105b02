"""Limits of a run's phases: what they end, and what they leave alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vmrunner
from vmrunner.config.run_values import PHASES
from vmrunner.config.units import Duration
from vmrunner.errors import BootError, RunTimeout
from vmrunner.events import Event, PhaseFinished, phase
from vmrunner.host.deadline import Clock, Deadline
from vmrunner.run.phase_limits import PhaseLimits

WITHOUT_LIMIT = {"accelerator", "stop"}
"""Phases of a test run that end by themselves."""
OF_OTHER_COMMANDS = {"verify", "snapshot", "disk", "tune", "copy", "build"}


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock(lambda: self.now, lambda seconds: setattr(self, "now", self.now + seconds))


def test_every_phase_in_the_source_was_thought_of() -> None:
    source = "".join(path.read_text() for path in Path(vmrunner.__file__).parent.rglob("*.py"))
    names = set(re.findall(r"\bphase\(\s*[a-z_.]*emit,\s*\"([a-z]+)\"", source))
    assert names - OF_OTHER_COMMANDS == {*PHASES, *WITHOUT_LIMIT}


def test_a_phase_ends_the_waits_of_its_time_and_no_others() -> None:
    time = Time()
    limits = PhaseLimits({"unit": Duration(5)}, time.clock)
    events: list[Event] = []
    emit = limits.watching(events.append)
    deadline = Deadline.after(60, time.clock, earlier=limits.earliest_end)
    begun_before = deadline.within(30)
    with phase(emit, "stage", ""):
        assert deadline.remaining == 60
    with phase(emit, "unit", ""):
        assert (deadline.remaining, begun_before.remaining) == (5, 5)
        assert begun_before.pause(3)
        assert deadline.within(10).remaining == 2
    assert (deadline.remaining, begun_before.remaining) == (57, 27)
    assert limits.exceeded is None
    assert [event.name for event in events if isinstance(event, PhaseFinished)] == ["stage", "unit"]


def test_a_phase_that_took_too_long_ends_the_run() -> None:
    time = Time()
    limits = PhaseLimits({"template": Duration(5), "unit": Duration(1)}, time.clock)
    emit = limits.watching(lambda _event: None)
    deadline = Deadline.after(60, time.clock, earlier=limits.earliest_end)
    error = BootError("QEMU did not answer", details="its words")

    def go_through_it() -> None:
        with phase(emit, "template", ""):
            while deadline.pause(1):
                pass
            raise error

    with pytest.raises(BootError):
        go_through_it()
    # Whoever catches it must not try another way.
    assert deadline.passed
    assert not deadline.pause(1)
    told = limits.told(error)
    assert isinstance(told, RunTimeout)
    assert told.message == "the phase `template` took longer than 5s"
    assert told.hint == "give it more with `--phase-timeout template=...`"
    assert told.details == "QEMU did not answer\nits words"
    with phase(emit, "unit", ""):
        time.clock.sleep(2)
    assert limits.exceeded == "template"


def test_other_errors_are_told_as_they_are() -> None:
    error = BootError("no kernel")
    assert PhaseLimits({"unit": Duration(5)}).told(error) is error

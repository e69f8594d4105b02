"""Limits of a run's phases: what they end, and what they leave alone."""

from __future__ import annotations

import ast
import importlib
import threading
from pathlib import Path

import pytest

import vmrunner
from vmrunner.config.run_values import PHASES
from vmrunner.config.units import Duration
from vmrunner.errors import BootError, RunTimeout
from vmrunner.events import Event, PhaseFinished, PhaseStarted, phase, silent
from vmrunner.host.deadline import Clock
from vmrunner.run.phase_limits import PhaseLimits

WITHOUT_LIMIT = {"accelerator", "stop"}
"""Phases of a test run that end by themselves."""
OF_OTHER_COMMANDS = {"verify", "snapshot", "disk", "tune", "copy"}


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = Clock(lambda: self.now, lambda seconds: setattr(self, "now", self.now + seconds))


def phases_of(path: Path) -> set[str]:
    """The names of the phases that a module goes through, given as they are or by a constant."""
    package = Path(vmrunner.__file__).parent
    module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
    names = [
        call.args[1]
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "phase"
    ]
    return {
        getattr(importlib.import_module(module), name.id)
        if isinstance(name, ast.Name)
        else ast.literal_eval(name)
        for name in names
    }


def test_every_phase_in_the_source_was_thought_of() -> None:
    found = set[str]().union(*(phases_of(path) for path in Path(vmrunner.__file__).parent.rglob("*.py")))
    assert found - OF_OTHER_COMMANDS == {*PHASES, *WITHOUT_LIMIT}


def test_a_phase_ends_the_waits_of_its_time_and_no_others() -> None:
    time = Time()
    limits = PhaseLimits({"unit": Duration(5)}, time.clock)
    events: list[Event] = []
    emit = limits.watching(events.append)
    deadline = limits.deadline(60)
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
    deadline = limits.deadline(60)
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


def test_a_limit_that_no_wait_could_keep_is_told_at_the_end() -> None:
    time = Time()
    limits = PhaseLimits({"collect": Duration(2)}, time.clock)
    emit = limits.watching(silent)
    limits.check()
    with phase(emit, "collect", ""):
        time.clock.sleep(3)
    with pytest.raises(RunTimeout, match="the phase `collect` took longer than 2s") as raised:
        limits.check()
    assert raised.value.hint == "give it more with `--phase-timeout collect=...`"


@pytest.mark.parametrize(("limit", "blamed"), [(4, "unit"), (5, None), (6, None)])
def test_the_time_of_the_whole_run_comes_first_where_it_is_up_first(limit: float, blamed: str | None) -> None:
    time = Time()
    limits = PhaseLimits({"unit": Duration(limit)}, time.clock)
    deadline = limits.deadline(5)
    error = RunTimeout("the time for the run was up while the tests ran")
    with phase(limits.watching(silent), "unit", ""):
        while deadline.pause(1):
            pass
        # nextest winds down.
        time.clock.sleep(10)
    assert limits.exceeded == blamed
    assert (limits.told(error) is error) == (blamed is None)


def test_phases_of_the_same_name_at_once_have_a_limit_each() -> None:
    time = Time()
    limits = PhaseLimits({"mount": Duration(5)}, time.clock)
    deadline = limits.deadline(60)
    one, two = limits.watching(silent), limits.watching(silent)
    with phase(one, "mount", ""):
        time.clock.sleep(3)
        with phase(two, "mount", ""):
            assert deadline.remaining == 2
        assert deadline.remaining == 2
        time.clock.sleep(1)
    assert limits.exceeded is None
    with phase(two, "mount", ""):
        time.clock.sleep(4)
        with phase(one, "mount", ""):
            time.clock.sleep(1)
    assert limits.exceeded == "mount"


def test_no_limit_is_a_limit_of_none() -> None:
    time = Time()
    limits = PhaseLimits({"unit": Duration(0)}, time.clock)
    deadline = limits.deadline(60)
    with phase(limits.watching(silent), "unit", ""):
        time.clock.sleep(30)
        assert deadline.remaining == 30
    assert limits.exceeded is None


def test_another_thread_never_sees_a_phase_as_neither_going_on_nor_too_long() -> None:
    seen: list[float] = []
    threads: list[threading.Thread] = []

    def now() -> float:
        """It is late, and another thread looks just then."""
        if not begun:
            return 0.0
        threads.append(threading.Thread(target=lambda: seen.append(limits.earliest_end())))
        threads[-1].start()
        threads[-1].join(0.2)
        return 2.0

    begun = False
    limits = PhaseLimits({"mount": Duration(1)}, Clock(now))
    emit = limits.watching(silent)
    emit(PhaseStarted("mount", ""))
    begun = True
    emit(PhaseFinished("mount", 2))
    for thread in threads:
        thread.join()
    assert seen == [float("-inf")]

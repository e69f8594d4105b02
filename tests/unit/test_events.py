"""Phases and what is told about them."""

from __future__ import annotations

import pytest

from vmrunner.events import (
    Event,
    Note,
    Output,
    PhaseFinished,
    PhaseProgress,
    PhaseStarted,
    Recorder,
    phase,
    silent,
)


def test_phase_tells_its_start_its_progress_and_its_end() -> None:
    events: list[Event] = []
    with phase(events.append, "stage", "Copying the sources") as current:
        current.progress(3, 10, "files", "src/lib.rs")
        current.text = "10 files"
    started, progress, finished = events
    assert started == PhaseStarted("stage", "Copying the sources")
    assert progress == PhaseProgress("stage", 3, 10, "files", "src/lib.rs")
    assert isinstance(finished, PhaseFinished)
    assert (finished.name, finished.text, finished.failed) == ("stage", "10 files", False)
    assert finished.seconds == current.seconds
    assert finished.seconds >= 0


@pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt()])
def test_phase_that_fails_is_told_as_failed_and_the_error_goes_on(problem: BaseException) -> None:
    events: list[Event] = []

    def work() -> None:
        with phase(events.append, "stage", "Copying"):
            raise problem

    with pytest.raises(type(problem)):
        work()
    finished = events[-1]
    assert isinstance(finished, PhaseFinished)
    assert finished.failed


def test_phases_may_nest() -> None:
    events: list[Event] = []
    with phase(events.append, "outer", ""), phase(events.append, "inner", ""):
        pass
    told = [(type(event).__name__, getattr(event, "name", None)) for event in events]
    assert told == [
        ("PhaseStarted", "outer"),
        ("PhaseStarted", "inner"),
        ("PhaseFinished", "inner"),
        ("PhaseFinished", "outer"),
    ]


def test_recorder_keeps_finished_phases_and_passes_everything_on() -> None:
    passed: list[Event] = []
    recorder = Recorder(passed.append)
    with phase(recorder, "boot", "Booting"):
        recorder(Output("stdout", b"x"))
    recorder(Note("done"))
    assert [one.name for one in recorder.phases] == ["boot"]
    assert [type(event) for event in passed] == [PhaseStarted, Output, PhaseFinished, Note]


def test_silent_takes_everything() -> None:
    recorder = Recorder(silent)
    with phase(recorder, "boot", "Booting") as current:
        current.progress(1, None)
    assert len(recorder.phases) == 1


def test_events_are_values() -> None:
    assert Note("a", "warning") == Note("a", "warning")
    assert len({Output("stdout", b"x"), Output("stdout", b"x"), Output("stderr", b"x")}) == 2
    with pytest.raises(AttributeError):
        Note("a").text = "b"  # type: ignore[misc]  # frozen is what is tested

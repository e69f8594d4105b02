"""Shards: a suite shared between machines that run at once, and one report of what they found together.

Threads, SSH and nextest's files are real; only the machines and what runs in them are stood in for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fake_sshd import running_sshd
from sample_seats import SampleSeat
from standin_shards import JUNIT, PATIENCE_SECONDS, Crew, Part, StandInMachine

from vmrunner.config.units import Duration
from vmrunner.errors import GuestLost, GuestPanicked, Interrupted, RunTimeout, VmrunnerError, exit_code_of
from vmrunner.events import Event, Note, Output, PhaseFinished, PhaseStarted, silent
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.machine.machine import Machine
from vmrunner.nextest.junit import parse_cases
from vmrunner.nextest.summary import Summary
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.follow import INTERRUPTED
from vmrunner.run.phase_limits import PhaseLimits
from vmrunner.run.report import Report
from vmrunner.run.seat import ReadySeat
from vmrunner.run.shards import Labelled, Shard, merge, partition_arguments
from vmrunner.run.staging import StagedJob

Recruit = Callable[..., Crew]


@pytest.fixture
def recruit() -> Iterator[Recruit]:
    """Makes the shards of a run, one for each part, whose machines are there already."""
    with ExitStack() as stack:
        run = stack.enter_context(open_run_directory(silent))

        def make(*parts: Part) -> Crew:
            crew = Crew(Report(run))
            for index, part in enumerate(parts, start=1):
                place = run.shard(index)
                sshd = stack.enter_context(running_sshd(part.behave(place)))
                machine = StandInMachine(cast("Guest", None))
                machine.guest = Guest(sshd.endpoint, alive=machine.check_alive)
                machine.guest.connect(Deadline.after(PATIENCE_SECONDS))
                stack.callback(machine.guest.close)
                ready = ReadySeat(cast("Machine", machine), place, "")
                seat = SampleSeat(place, start="restored", machine_seat=ready)
                crew.shards.append(Shard(index, len(parts), seat, StagedJob(JUNIT)))
                crew.machines.append(machine)
                crew.guests.append(sshd)
            return crew

        yield make


def test_limits_of_phases_hold_for_those_of_each_shard(recruit: Recruit) -> None:
    """Whichever shard collects first takes too long; whether the other still waits then, and is ended, is not said."""
    limits = PhaseLimits({"collect": Duration(1e-6)})
    crew = recruit(Part("tests::a"), Part("tests::b"))
    with contextlib.suppress(RunTimeout):
        crew.run(limits=limits)
    with pytest.raises(RunTimeout, match="the phase `collect` took longer than"):
        limits.check()


def test_the_limit_of_the_tests_is_for_all_shards_together(recruit: Recruit) -> None:
    limits = PhaseLimits({"unit": Duration(0.5)})
    quick, slow = Part("tests::quick"), Part("tests::slow", endless=True)
    crew = recruit(quick, slow)
    with pytest.raises(RunTimeout) as raised:
        crew.run(limits=limits)
    assert limits.told(raised.value).message == "the phase `unit` took longer than 0.5s"
    assert slow.asked_to_stop.is_set()
    assert {case.name for case in crew.report.cases} == {"tests::quick", "tests::slow"}


def test_the_slices_of_a_suite() -> None:
    assert [partition_arguments(index, 3) for index in (1, 2, 3)] == [
        ("--partition", "slice:1/3"), ("--partition", "slice:2/3"), ("--partition", "slice:3/3"),
    ]  # fmt: skip


def test_one_machine_alone_runs_the_whole_suite() -> None:
    assert partition_arguments(1, 1) == ()


def test_shards_run_at_the_same_time_and_one_report_tells_of_all(recruit: Recruit) -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    crew = recruit(*(Part(f"tests::{name}", go_on=meeting.wait) for name in ("a", "b", "c")))
    crew.run()
    report = crew.report
    assert (report.exit_code, report.outcome) == (0, "passed")
    assert [(case.binary, case.name) for case in report.cases] == [
        ("demo", "tests::a"), ("demo", "tests::b"), ("demo", "tests::c"),
    ]  # fmt: skip
    assert report.has_junit and parse_cases(report.run.junit.read_bytes()) == report.cases
    assert report.summary == Summary(seconds=0.5, run=3, planned=3, passed=3)
    assert [shard.outcome for shard in report.shards] == ["passed"] * 3
    assert [shard.run.id for shard in report.shards] == [f"{report.run.id}-{index}" for index in (1, 2, 3)]
    assert [item.name for item in report.shards[0].phases] == ["mount", "unit", "collect"]


def test_only_the_phase_of_all_of_them_is_shown(recruit: Recruit) -> None:
    crew = recruit(Part("a"), Part("b"))
    crew.run()
    phases = [event for event in crew.events if isinstance(event, PhaseStarted | PhaseFinished)]
    assert [event.name for event in phases] == ["unit", "unit"]
    assert phases[0] == PhaseStarted("unit", "Running the tests in 2 machines")


def test_output_is_labelled_and_kept_also_where_the_last_line_does_not_end(recruit: Recruit) -> None:
    crew = recruit(Part("a"), Part("b"))
    crew.run()
    summary = "     Summary [   0.500s] 1 test run: 1 passed, 0 failed, 1 skipped"
    assert crew.printed("stdout") == ["1/2 from a", "2/2 from b"]
    assert crew.printed("stderr") == [f"1/2 {summary}", "1/2   START a", f"2/2 {summary}", "2/2   START b"]
    log = crew.report.run.nextest_log.read_text().splitlines()
    expected = {"[1/2]": ["  START a", summary, "from a"], "[2/2]": ["  START b", summary, "from b"]}
    assert sorted(log) == sorted(f"{label} {line}" for label, lines in expected.items() for line in lines)


def test_a_failure_in_one_shard_fails_the_whole(recruit: Recruit) -> None:
    crew = recruit(Part("good"), Part("bad", code=100))
    crew.run()
    assert (crew.report.exit_code, crew.report.outcome) == (100, "failed")
    assert {case.name: case.outcome for case in crew.report.cases} == {"good": "passed", "bad": "failed"}
    assert crew.report.counts() == {"passed": 1, "failed": 1, "skipped": 0, "flaky": 0}
    assert [shard.exit_code for shard in crew.report.shards] == [0, 100]


def test_a_slice_without_tests_is_no_failure(recruit: Recruit) -> None:
    crew = recruit(Part("good"), Part("", code=4))
    crew.run()
    assert (crew.report.exit_code, crew.report.outcome) == (0, "passed")
    assert [shard.outcome for shard in crew.report.shards] == ["passed", "no-tests"]
    assert [case.name for case in crew.report.cases] == ["good"]


def test_slices_that_have_no_tests_at_all_are_one(recruit: Recruit) -> None:
    crew = recruit(Part("", code=4), Part("", code=4))
    crew.run()
    assert (crew.report.exit_code, crew.report.outcome) == (4, "no-tests")
    assert crew.report.as_json()["artifacts"]["junit"] is None


def test_a_machine_that_dies_does_not_keep_the_other_one_from_its_end(recruit: Recruit) -> None:
    died = threading.Event()
    crew = recruit(Part("lost", endless=True), Part("kept", go_on=lambda: died.wait(PATIENCE_SECONDS)))
    error = GuestPanicked("the guest's kernel panicked")

    def kill_the_first(event: Event) -> None:
        crew.events.append(event)
        if isinstance(event, Output) and event.label == "1/2":
            crew.machines[0].demise = error
            died.set()

    with pytest.raises(GuestPanicked) as caught:
        crew.run(emit=kill_the_first)
    assert caught.value is error
    assert exit_code_of(caught.value) == 23
    assert [shard.outcome for shard in crew.report.shards] == ["error", "passed"]
    assert [case.name for case in crew.report.cases] == ["kept"]
    assert crew.report.run.junit.exists()


def test_a_bug_in_a_thread_is_not_swallowed(recruit: Recruit) -> None:
    crew = recruit(Part("a"), Part("b"))
    crew.machines[1].demise = ZeroDivisionError("of our making")
    with pytest.raises(ZeroDivisionError, match="of our making"):
        crew.run()
    assert crew.report.shards[0].outcome == "passed"


def test_when_the_time_is_up_every_nextest_is_asked_to_stop(recruit: Recruit) -> None:
    parts = [Part("a", endless=True, code=100), Part("b", endless=True, code=100)]
    crew = recruit(*parts)
    with pytest.raises(RunTimeout) as caught:
        crew.run(seconds=0.3)
    assert exit_code_of(caught.value) == 25
    assert all(part.asked_to_stop.is_set() for part in parts)
    notes = [event.text for event in crew.events if isinstance(event, Note)]
    assert sorted(notes) == [f"shard {n}/2: the time is up: nextest is asked to stop" for n in (1, 2)]
    assert {case.name for case in crew.report.cases} == {"a", "b"}, "what they found until then is told"


def signals_once(crew: Crew, condition: Callable[[], bool]) -> threading.Thread:
    """Send this process SIGINT as soon as `condition` holds, as Ctrl-C does."""

    def send() -> None:
        patience = Deadline.after(PATIENCE_SECONDS)
        while not condition():
            assert patience.pause(0.01), crew.events
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def both_have_printed(crew: Crew) -> bool:
    return {event.label for event in crew.events if isinstance(event, Output)} == {"1/2", "2/2"}


def test_a_signal_asks_every_nextest_to_stop_and_keeps_what_they_found(recruit: Recruit) -> None:
    parts = [Part("a", endless=True, code=100), Part("b", endless=True)]
    crew = recruit(*parts)
    sender = signals_once(crew, lambda: both_have_printed(crew))
    with pytest.raises(Interrupted) as caught, interruptible():
        crew.run()
    sender.join()
    assert caught.value.exit_code == 130
    assert all(part.asked_to_stop.is_set() for part in parts)
    assert [event for event in crew.events if isinstance(event, Note)] == [INTERRUPTED]
    assert [shard.interrupted for shard in crew.report.shards] == [True, True]
    assert {case.name: case.outcome for case in crew.report.cases} == {"a": "failed", "b": "passed"}
    assert crew.report.exit_code is None
    assert [machine.stopped for machine in crew.machines] == [True, True]


def test_a_second_signal_ends_a_nextest_that_does_not_listen_at_once(recruit: Recruit) -> None:
    parts = [Part("a", endless=True, obedient=False), Part("b", endless=True, obedient=False)]
    crew = recruit(*parts)
    first = signals_once(crew, lambda: both_have_printed(crew))
    second = signals_once(crew, lambda: all(part.asked_to_stop.is_set() for part in parts))
    began = time.monotonic()
    with pytest.raises(Interrupted), interruptible():
        crew.run(seconds=60)
    assert time.monotonic() - began < PATIENCE_SECONDS, "a nextest that listens would have 15 s"
    first.join()
    second.join()
    assert [machine.stopped for machine in crew.machines] == [True, True]
    assert not any(thread.name.startswith("shard") for thread in threading.enumerate())


def reports(run: RunDirectory, ends: Sequence[int | VmrunnerError]) -> Report:
    """A report whose shards ended so."""
    shards = [
        Report(run, error=end) if isinstance(end, VmrunnerError) else Report(run, exit_code=end)
        for end in ends
    ]
    return Report(run, shards=shards)


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        ([0, 0], 0), ([0, 100], 100), ([100, 0, 0], 100), ([100, 104], 104), ([105, 100, 4], 105),
        ([0, 4], 0), ([4, 100], 100), ([4, 4], 4), ([4], 4),
    ],
)  # fmt: skip
def test_the_worst_exit_code_counts(tmp_path: Path, codes: list[int], worst: int) -> None:
    report = reports(RunDirectory("1", tmp_path, tmp_path), codes)
    merge(report)
    assert report.exit_code == worst
    assert not report.has_junit


def test_the_first_error_of_a_shard_is_that_of_the_run(tmp_path: Path) -> None:
    first, second = GuestLost("first"), GuestPanicked("second")
    report = reports(RunDirectory("1", tmp_path, tmp_path), [100, first, second])
    with pytest.raises(GuestLost, match="first"):
        merge(report)
    assert report.exit_code is None


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the common log is."""
    return tmp_path / "nextest.log"


def test_lines_are_handed_on_whole_however_they_come(kept: Path) -> None:
    events: list[Event] = []
    with kept.open("ab") as log:
        labelled = Labelled(events.append, "1/2", log, threading.Lock())
        for chunk in (b"on", b"e\ntw", b"", b"o\nthree\n\n", b"fo"):
            labelled(Output("stderr", chunk))
        labelled(Output("stdout", b"other\n"))
        assert kept.read_bytes() == b"[1/2] one\n[1/2] two\n[1/2] three\n[1/2] \n[1/2] other\n"
        labelled.close()
        labelled.close()
    assert events == [
        Output("stderr", b"one\n", "1/2"),
        Output("stderr", b"two\nthree\n\n", "1/2"),
        Output("stdout", b"other\n", "1/2"),
        Output("stderr", b"fo\n", "1/2"),
    ]
    assert kept.read_bytes().endswith(b"[1/2] fo\n")


def test_notes_say_of_which_shard_they_are(kept: Path) -> None:
    events: list[Event] = []
    with kept.open("ab") as log:
        labelled = Labelled(events.append, "2/2", log, threading.Lock())
        labelled(Note("nextest left no JUnit report", "warning"))
        labelled(PhaseStarted("collect", "Collecting the results"))
        labelled(PhaseFinished("collect", 1.0))
    assert events == [Note("shard 2/2: nextest left no JUnit report", "warning")]


def test_shards_that_print_at_once_do_not_mix(kept: Path) -> None:
    shown: list[bytes] = []
    under_way = threading.Lock()

    def show(event: Event) -> None:
        assert isinstance(event, Output)
        assert under_way.acquire(blocking=False), "two events at once"
        time.sleep(0.0001)
        shown.extend(event.label.encode() + line for line in event.data.splitlines(keepends=True))
        under_way.release()

    with kept.open("ab") as log:
        lock = threading.Lock()

        def print_much(label: str) -> None:
            labelled = Labelled(show, label, log, lock)
            text = b"".join(b" %d\n" % number for number in range(300))
            for position in range(0, len(text), 7):
                labelled(Output("stderr", text[position : position + 7]))
            labelled.close()

        threads = [threading.Thread(target=print_much, args=[label]) for label in ("1/2", "2/2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for label in (b"1/2", b"2/2"):
        whole = [label + b" %d\n" % number for number in range(300)]
        assert [line for line in shown if line.startswith(label)] == whole
        lines = kept.read_bytes().splitlines(keepends=True)
        assert [line for line in lines if line.startswith(b"[" + label)] == [
            line.replace(label, b"[" + label + b"] ", 1) for line in whole
        ]


def test_labels_count_from_one() -> None:
    shard = Shard(1, 4, SampleSeat(RunDirectory("1", Path("/x"), Path("/y"))), StagedJob(JUNIT))
    assert (shard.label, replace(shard, index=4).label) == ("1/4", "4/4")

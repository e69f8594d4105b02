"""Staying with a run: nextest's output as it comes, the machine watched, an end in every case."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import paramiko
import pytest
from fake_sshd import FakeSshd, Run, answer, running_sshd

from vmrunner.config.units import Size
from vmrunner.errors import GuestError, GuestPanicked, Interrupted, RunTimeout, VmrunnerError, exit_code_of
from vmrunner.events import Emit, Event, Note, Output, PhaseFinished, PhaseStarted, silent
from vmrunner.guest.ssh import Guest
from vmrunner.guest.unit import UnitStatus
from vmrunner.host.deadline import Deadline
from vmrunner.machine.machine import Machine
from vmrunner.run.directory import RunDirectory
from vmrunner.run.follow import INTERRUPTED, Cancellation, Cancelled, LogTail, follow_unit, started
from vmrunner.run.seat import ReadySeat

STATUS = b"ActiveState=active\nLoadState=loaded\nResult=success\nExecMainCode=1\nExecMainStatus=0\n"


@dataclass
class FakeMachine:
    """What following needs of a machine: a guest, and an answer to whether it lives."""

    guest: Guest
    demise: VmrunnerError | KeyboardInterrupt | None = None

    def check_alive(self) -> None:
        if self.demise:
            demise, self.demise = self.demise, None
            raise demise


@contextlib.contextmanager
def machine(behaviour: Run) -> Iterator[tuple[FakeMachine, FakeSshd]]:
    with running_sshd(behaviour) as sshd:
        fake = FakeMachine(Guest(sshd.endpoint, alive=lambda: None))
        fake.guest.connect(Deadline.after(5))
        try:
            yield fake, sshd
        finally:
            fake.guest.close()


def follow(
    fake: FakeMachine,
    run: RunDirectory,
    emit: Emit,
    *,
    seconds: float = 5.0,
    prelude: str = ":",
    cancellation: Cancellation | None = None,
) -> UnitStatus:
    seat = ReadySeat(cast("Machine", fake), run, prelude)
    return follow_unit(
        seat, deadline=Deadline.after(seconds), emit=emit, cancellation=cancellation or Cancellation()
    )


def unit_of(run: RunDirectory, *, ends: bool = True) -> Run:
    """A guest that starts nextest, prints, and ends well; or that runs until it is told to stop."""
    waiting: list[paramiko.Channel] = []
    begun = threading.Event()

    def behave(command: str, channel: paramiko.Channel) -> None:
        if "systemctl kill" in command:
            begun.wait(5)
            with (run.out / "nextest.log").open("a") as log:
                log.write("Canceling\n")
            answer()(command, channel)
            for other in waiting:
                answer(0, STATUS)(command, other)
            return
        (run.out / "started").touch()
        # One after the other: a test that ends the run at the second must have seen the first.
        for name, text in (("nextest.log", "PASS demo\n"), ("stdout.log", "printed\n")):
            with (run.out / name).open("a") as log:
                log.write(text)
        if ends:
            answer(0, STATUS)(command, channel)
        else:
            waiting.append(channel)
            begun.set()

    return behave


def output_of(events: list[Event], stream: str) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Output) and event.stream == stream)


def test_a_run_that_ends_by_itself(run: RunDirectory) -> None:
    events: list[Event] = []
    with machine(unit_of(run)) as (fake, _):
        assert follow(fake, run, events.append) == UnitStatus.parse(STATUS.decode())
    assert started(run)
    assert output_of(events, "stderr") == b"PASS demo\n"
    assert output_of(events, "stdout") == b"printed\n"
    phases = [event.name for event in events if isinstance(event, PhaseStarted)]
    assert phases == ["mount", "unit"]
    assert not any(event.failed for event in events if isinstance(event, PhaseFinished))


def test_output_comes_while_the_tests_still_run(run: RunDirectory) -> None:
    events: list[Event] = []

    def stop_once_seen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Output) and event.stream == "stdout":
            raise GuestPanicked("seen")

    with machine(unit_of(run, ends=False)) as (fake, _), pytest.raises(GuestPanicked, match="seen"):
        follow(fake, run, stop_once_seen)
    assert output_of(events, "stderr") == b"PASS demo\n"


def test_a_machine_that_dies_ends_the_run_at_once(run: RunDirectory) -> None:
    events: list[Event] = []

    def panic(_command: str, _channel: paramiko.Channel) -> None:
        (run.out / "started").touch()
        (run.out / "nextest.log").write_text("last words\n")
        fake.demise = GuestPanicked("the guest's kernel panicked")

    with machine(panic) as (fake, _):
        began = time.monotonic()
        with pytest.raises(GuestPanicked):
            follow(fake, run, events.append)
        assert time.monotonic() - began < 5
    assert output_of(events, "stderr") == b"last words\n"


def test_when_the_time_is_up_nextest_is_asked_to_stop_and_its_words_are_shown(run: RunDirectory) -> None:
    events: list[Event] = []
    with machine(unit_of(run, ends=False)) as (fake, sshd):
        with pytest.raises(RunTimeout, match="while the tests ran") as caught:
            follow(fake, run, events.append, seconds=0.2)
        assert "systemctl kill" in sshd.commands[-1]
    assert exit_code_of(caught.value) == 25
    assert "--timeout" in str(caught.value.hint)
    assert Note("the time is up: nextest is asked to stop", "warning") in events
    assert output_of(events, "stderr") == b"PASS demo\nCanceling\n"


def test_a_signal_lets_nextest_write_its_report_first(run: RunDirectory) -> None:
    events: list[Event] = []
    unit = unit_of(run, ends=False)

    def run_and_interrupt(command: str, channel: paramiko.Channel) -> None:
        unit(command, channel)
        if "systemctl kill" not in command:
            fake.demise = Interrupted(2)

    with machine(run_and_interrupt) as (fake, sshd):
        with pytest.raises(Interrupted):
            follow(fake, run, events.append)
        assert "systemctl kill" in sshd.commands[-1]
    assert INTERRUPTED in events
    assert output_of(events, "stderr").endswith(b"Canceling\n")


def test_another_thread_can_end_the_run_as_a_signal_does(run: RunDirectory) -> None:
    events: list[Event] = []
    cancellation = Cancellation()

    def cancel_once_seen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Output):
            cancellation.set()

    with machine(unit_of(run, ends=False)) as (fake, sshd):
        with pytest.raises(Cancelled):
            follow(fake, run, cancel_once_seen, cancellation=cancellation)
        assert "systemctl kill" in sshd.commands[-1]
    assert output_of(events, "stderr").endswith(b"Canceling\n")
    assert not any(isinstance(event, Note) for event in events), "who cancels says so, once for all"


def test_a_run_that_was_cancelled_before_it_began_ends_too(run: RunDirectory) -> None:
    cancellation = Cancellation()
    cancellation.set()
    with machine(unit_of(run, ends=False)) as (fake, _), pytest.raises(Cancelled):
        follow(fake, run, silent, cancellation=cancellation)


def test_the_preparation_goes_before_the_unit_in_one_command(run: RunDirectory) -> None:
    with machine(unit_of(run)) as (fake, sshd):
        follow(fake, run, silent, prelude="hostname db-1.test")
        (command,) = sshd.commands
    assert (
        0 < command.index("hostname db-1.test") < command.index("else systemctl start cargo-nextest.service")
    )


def test_logs_that_grow_without_end_are_an_error(run: RunDirectory) -> None:
    tail = LogTail(run, silent, Size(1000))
    run.nextest_log.write_bytes(b"x" * 900)
    tail.hand_on()
    run.stdout_log.write_bytes(b"x" * 200)
    with pytest.raises(GuestError, match="print without end") as caught:
        tail.hand_on()
    tail.close()
    assert exit_code_of(caught.value) == 23


def test_only_what_is_new_is_handed_on(run: RunDirectory) -> None:
    events: list[Event] = []
    tail = LogTail(run, events.append)
    for text in ("one\n", "", "two\n"):
        with run.nextest_log.open("a") as log:
            log.write(text)
        tail.hand_on()
    tail.close()
    assert events == [Output("stderr", b"one\n"), Output("stderr", b"two\n")]


def test_started_is_a_mark_of_the_guests(run: RunDirectory) -> None:
    assert not started(run)
    (run.out / "started").symlink_to("nowhere")
    assert started(run)

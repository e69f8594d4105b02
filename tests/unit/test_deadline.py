"""Deadlines, by a clock that only moves when told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from vmrunner.host.deadline import SYSTEM_CLOCK, Clock, Deadline


@dataclass
class FakeTime:
    """Seconds that pass only in `sleep`."""

    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


def deadline(fake: FakeTime, seconds: float) -> Deadline:
    return Deadline.after(seconds, Clock(fake.now, fake.sleep))


def test_remaining_counts_down_to_zero_and_no_further(fake: FakeTime) -> None:
    ten = deadline(fake, 10)
    assert ten.remaining == 10
    fake.seconds += 4
    assert ten.remaining == 6
    fake.seconds += 100
    assert ten.remaining == 0


def test_passed_from_its_very_moment(fake: FakeTime) -> None:
    ten = deadline(fake, 10)
    fake.seconds += 9.999
    assert not ten.passed
    fake.seconds = 1010.0
    assert ten.passed


def test_pause_sleeps_what_was_asked(fake: FakeTime) -> None:
    assert deadline(fake, 10).pause(0.5)
    assert fake.slept == [0.5]


def test_pause_never_sleeps_past_the_deadline(fake: FakeTime) -> None:
    two = deadline(fake, 2)
    assert two.pause(5)
    assert fake.slept == [2]
    assert not two.pause(5)
    assert fake.slept == [2]


def test_loop_on_pause_ends(fake: FakeTime) -> None:
    one = deadline(fake, 1)
    rounds = 0
    while one.pause(0.3):
        rounds += 1
    assert rounds == 4
    assert fake.seconds == pytest.approx(1001.0)


def test_within_is_the_earlier_of_both(fake: FakeTime) -> None:
    ten = deadline(fake, 10)
    assert ten.within(3).remaining == 3
    assert ten.within(30).remaining == 10


def test_within_keeps_the_clock(fake: FakeTime) -> None:
    assert deadline(fake, 10).within(3).pause(1)
    assert fake.slept == [1]


def test_deadline_in_the_past_has_passed(fake: FakeTime) -> None:
    assert deadline(fake, -1).passed
    assert deadline(fake, -1).remaining == 0


def test_system_clock_is_monotonic_and_moves() -> None:
    before = time.monotonic()
    limit = Deadline.after(0.01)
    while limit.pause(0.005):
        pass
    assert time.monotonic() - before >= 0.01
    assert SYSTEM_CLOCK.now() >= before

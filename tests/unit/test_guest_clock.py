"""How far a guest's clock is off: the difference is found whatever it is, with how sure that is."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from fake_sshd import FakeSshd, answer, running_sshd

from vmrunner.errors import GuestError, exit_code_of
from vmrunner.guest.clock import ClockReading, read_clock
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.host.deadline import Deadline

PROGRAM = Path(__file__).parents[2] / "images" / "guest" / "usr" / "lib" / "vmrunner" / "clock"


@contextlib.contextmanager
def guest_of(sshd: FakeSshd) -> Iterator[Guest]:
    guest = Guest(sshd.endpoint, alive=lambda: None)
    guest.connect(Deadline.after(10))
    with contextlib.closing(guest):
        yield guest


def clock_that_is_off(
    by: float, *, delays: tuple[float, ...] = ()
) -> Callable[[str, paramiko.Channel], None]:
    """A guest's program whose clock is `by` seconds ahead, and whose answers come late by `delays`, one after another."""

    def run(_command: str, channel: paramiko.Channel) -> None:
        waits = iter(delays)
        while channel.recv(64):
            time.sleep(next(waits, 0.0))
            channel.sendall(f"{time.time() + by:.9f}\n".encode())

    return run


def read(run: Callable[[str, paramiko.Channel], None]) -> ClockReading:
    with running_sshd(run) as sshd, guest_of(sshd) as guest:
        return read_clock(guest, deadline=Deadline.after(10))


@pytest.mark.parametrize("by", [0.0, -3600.5, 12345678.25])
def test_the_difference_is_found_within_its_uncertainty(by: float) -> None:
    reading = read(clock_that_is_off(by))
    assert reading.uncertainty > 0
    assert abs(reading.offset - by) <= reading.uncertainty + 1e-3


def test_answers_that_come_late_count_less_than_one_that_comes_fast() -> None:
    slow = (0.05, 0.05, 0.05, 0.0, 0.05, 0.05, 0.05, 0.05)
    reading = read(clock_that_is_off(5.0, delays=slow))
    assert reading.uncertainty < 0.02
    assert abs(reading.offset - 5.0) <= reading.uncertainty + 1e-3


def test_a_reading_says_when_it_was_taken() -> None:
    before = time.monotonic()
    assert before <= read(clock_that_is_off(1.0)).at <= time.monotonic()


@pytest.mark.parametrize("said", [b"sh: /usr/lib/vmrunner/clock: not found\n", b"\n", b"", b"\xff\xfe\n"])
def test_a_guest_that_does_not_say_the_time_is_the_guests_fault(said: bytes) -> None:
    with pytest.raises((GuestError, ConnectionLost)) as caught:
        read(answer(127, stdout=said))
    if isinstance(caught.value, GuestError):
        assert exit_code_of(caught.value) == 23
        assert caught.value.message == "the guest does not say what time it is"


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
def test_the_guests_program_answers_each_line_with_the_time() -> None:
    with subprocess.Popen(
        ["perl", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin
        assert program.stdout
        for _ in range(3):
            asked = time.time()
            program.stdin.write("\n")
            program.stdin.flush()
            shown = program.stdout.readline()
            # Nine digits behind the point are more than a float holds of this number.
            assert asked - 1e-6 <= float(shown) <= time.time() + 1e-6
            assert len(shown.strip().partition(".")[2]) == 9

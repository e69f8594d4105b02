"""The guest's meter, in a real shell on this computer, and against a guest that lies."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_guest import local_guest

from vmrunner.guest import meter
from vmrunner.guest.meter import Meter
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.host.deadline import Deadline


class Channel:
    """Gives what it was given, a piece for each time that it is read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.closed = False
        self.asked = 0

    def sendall(self, data: bytes) -> None:
        assert data == b"\n"
        self.asked += 1

    def recv_ready(self) -> bool:
        return bool(self.pieces)

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0)[:size]


def meter_of(channel: Channel) -> Meter:
    guest: Any = SimpleNamespace(open_channel=lambda _prepare, deadline: channel)
    return Meter(guest, deadline=Deadline.after(1))


def test_a_real_shell_says_what_this_kernel_has() -> None:
    with local_guest() as (guest, _):
        running = Meter(guest, deadline=Deadline.after(5))
        patience, found = Deadline.after(10), None
        while found is None and patience.pause(0.05):
            found = running.latest()
        running.close()
    assert found is not None
    assert abs(found.uptime - time.clock_gettime(time.CLOCK_BOOTTIME)) < 15
    assert found.available is not None
    assert found.available > 1 << 20
    assert found.swapped is not None
    card = Path("/sys/class/net/eth0/statistics/rx_bytes")
    assert (found.received is not None) == card.exists()


def test_the_loop_answers_each_question_and_ends_with_them() -> None:
    ended = subprocess.run(
        ["sh", "-c", meter._LOOP], input="\n\n", capture_output=True, text=True, timeout=20, check=True
    )
    assert (len(ended.stdout.splitlines()), ended.stderr) == (2, "")


def test_the_last_whole_line_counts() -> None:
    running = meter_of(Channel(b"1.00 10 0 - - - -\n2.00 20 5 1500000 1 700 800\n3.00 30", b" 0 - - - -\n"))
    found = running.latest()
    assert found is not None
    assert (found.uptime, found.available, found.swapped, found.stalled, found.kills) == (
        2.0,
        20480,
        5120,
        1.5,
        1,
    )
    assert (found.received, found.sent) == (700, 800)
    later = running.latest()
    assert later is not None
    assert (later.uptime, later.available, later.stalled, later.received) == (3.0, 30720, None, None)
    assert running.latest() is None


def test_one_question_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "INTERVAL_SECONDS", 0.0)
    channel = Channel(b"1.00 10 0", b" - - - -\n", b"2.00 10 0 - - - -\n")
    running = meter_of(channel)
    asked = []
    for _ in range(4):
        running.latest()
        asked.append(channel.asked)
    assert asked == [1, 2, 3, 3]


def test_not_more_often_than_once_a_second() -> None:
    channel = Channel(b"1.00 10 0 - - - -\n", b"2.00 10 0 - - - -\n")
    running = meter_of(channel)
    assert running.latest() is not None
    assert running.latest() is not None
    assert channel.asked == 1


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 70000,
        b"a b c d e f g\n",
        b"1.00 -5 0 - - - -\n",
        b"1 2 3 4 5 6 7\n",
        b"1.00 1 1 1 1\n",
        b"9" * 500 + b".00 1 1 1 1 1 1\n",
    ],
    ids=len,
)
def test_what_makes_no_sense_is_not_heard(said: bytes) -> None:
    running = meter_of(Channel(said, said))
    assert (running.latest(), running.latest()) == (None, None)
    assert len(running._rest) <= 200


def test_an_end_is_told() -> None:
    channel = Channel()
    running = meter_of(channel)
    channel.closed = True
    with pytest.raises(ConnectionLost):
        running.latest()

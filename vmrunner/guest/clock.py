"""The guest's wall clock: how far it is off from the host's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrunner.errors import GuestError
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.host.deadline import Deadline

if TYPE_CHECKING:
    import paramiko

_CLOCK = "/usr/lib/vmrunner/clock"
_ROUNDS = 8


@dataclass(frozen=True)
class ClockReading:
    """The guest's clock less the host's, in seconds, good to `uncertainty` either way; `at` is the host's monotonic."""

    offset: float
    uncertainty: float
    at: float


def read_clock(guest: Guest, *, deadline: Deadline) -> ClockReading:
    """Ask the guest for the time some times over and take the answer that came fastest.

    Raises ConnectionLost; GuestError where the guest does not say the time.
    """
    import paramiko

    channel = guest.open_channel(lambda new: new.exec_command(_CLOCK), deadline=deadline)
    try:
        channel.settimeout(max(deadline.remaining, 0.1))
        return min((_ask(channel) for _ in range(_ROUNDS)), key=lambda reading: reading.uncertainty)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise ConnectionLost(f"the guest did not say the time: {error}") from error
    finally:
        channel.close()


def _ask(channel: paramiko.Channel) -> ClockReading:
    asked, asked_monotonic = time.time(), time.monotonic()
    channel.sendall(b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = channel.recv(64)
        if not chunk:
            break
        answer += chunk
    answered = time.time()
    try:
        shown = float(answer)
    except ValueError:
        raise GuestError("the guest does not say what time it is", details=repr(answer[:64])) from None
    return ClockReading(shown - (asked + answered) / 2, (answered - asked) / 2, asked_monotonic)

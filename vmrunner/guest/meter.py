"""What a guest says of its own memory and network while something runs in it, asked over the SSH connection there is.

One shell in the guest waits for questions and reads files that are short, for it reads them byte by byte. It starts no
process: one `sleep` a second would take a tenth of an emulated vCPU (measured). It ends with its standard input. What it
says is the guest's word: read with limits, and never waited for.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.guest.ssh import ConnectionLost, Guest, closing_channel
from vmrunner.host.deadline import Deadline

if TYPE_CHECKING:
    import paramiko

# proc_meminfo(5), proc_swaps(5), the kernel's accounting/psi.rst, cgroup-v2.rst and ABI/testing/sysfs-class-net-statistics.
# A kernel without one of these files leaves that word out.
_LOOP: Final = """while read -r _; do
  available=- swap=- stalled=- kills=- received=- sent=-
  read -r up _ </proc/uptime
  while read -r name value _; do [ $name != MemAvailable: ] || { available=$value; break; }; done </proc/meminfo
  { read -r _; swap=0; while read -r _ _ _ used _; do swap=$((swap + used)); done; } </proc/swaps
  read -r _ _ _ _ total </proc/pressure/memory && stalled=${total#total=}
  while read -r name value; do [ "$name" != oom_kill ] || kills=$value
  done </sys/fs/cgroup/system.slice/cargo-nextest.service/memory.events
  read -r received </sys/class/net/eth0/statistics/rx_bytes
  read -r sent </sys/class/net/eth0/statistics/tx_bytes
  echo "$up $available $swap $stalled $kills $received $sent" || exit
done 2>/dev/null"""
_LINE: Final = re.compile(
    r"(\d{1,12}\.\d\d) (\d{1,15}|-) (\d{1,15}|-) (\d{1,18}|-) (\d{1,9}|-) (\d{1,18}|-) (\d{1,18}|-)"
)
INTERVAL_SECONDS = 1.0
"""From one question to the next, at least."""

_CHUNK_BYTES: Final = 1 << 16
_LONGEST_LINE: Final = 200


@dataclass(frozen=True)
class GuestUse:
    """One look: bytes that could be used without swapping, bytes in swap, seconds that some task waited for memory.

    `uptime` is the guest's, in seconds; `kills` counts the unit's processes that were killed for memory; `received` and
    `sent` are the bytes of its first network card, SSH of this host included. None is what the guest's kernel does not say.
    """

    uptime: float
    available: int | None
    swapped: int | None
    stalled: float | None
    kills: int | None
    received: int | None = None
    sent: int | None = None


class Meter:
    """The shell in the guest; made where a connection is, ended by `close` or by the connection's end."""

    def __init__(self, guest: Guest, *, deadline: Deadline) -> None:
        """Start it, with a first question. Raises ConnectionLost."""
        self._channel: paramiko.Channel = guest.open_channel(
            lambda channel: channel.exec_command(_LOOP), deadline=deadline
        )
        self._rest = ""
        self._answered = False
        self._next = 0.0
        self._ask()

    def latest(self) -> GuestUse | None:
        """What was said last since the last time, and the next question; None where nothing was. Does not wait.

        Raises ConnectionLost.
        """
        if self._channel.closed and not self._channel.recv_ready():
            raise ConnectionLost("the guest's meter has ended")
        found = self._heard() if self._channel.recv_ready() else None
        if self._answered and time.monotonic() >= self._next:
            self._ask()
        return found

    def _heard(self) -> GuestUse | None:
        """As much as there is now and no more, whatever a guest sends meanwhile."""
        text = self._rest + self._channel.recv(_CHUNK_BYTES).decode(errors="replace")
        *lines, rest = text.split("\n")
        self._rest = rest[-_LONGEST_LINE:]
        self._answered = self._answered or bool(lines)
        return next(filter(None, map(_parse, reversed(lines))), None)

    def _ask(self) -> None:
        """One question at a time, so that what is sent always finds room; an answer takes 20 ms of an emulated vCPU."""
        self._answered, self._next = False, time.monotonic() + INTERVAL_SECONDS
        try:
            self._channel.sendall(b"\n")
        except OSError as error:
            raise ConnectionLost("the guest's meter takes no question") from error

    def close(self) -> None:
        """End it."""
        with closing_channel(self._channel):
            pass


def _parse(line: str) -> GuestUse | None:
    match = _LINE.fullmatch(line.rstrip())
    if match is None:
        return None
    available, swapped, stalled, kills, received, sent = (
        None if word == "-" else int(word) for word in match.groups()[1:]
    )
    return GuestUse(
        float(match[1]),
        None if available is None else available << 10,
        None if swapped is None else swapped << 10,
        None if stalled is None else stalled / 1e6,
        kills,
        received,
        sent,
    )

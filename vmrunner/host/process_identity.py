"""Which process a number meant: process ids are used again, so an id alone must never be signalled later."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
# proc(5), /proc/PID/stat, counted from the field that follows the program's name (field 3, the state).
_STATE = 0
_START_TICKS = 19
_DEAD_STATES = ("Z", "X")
_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot of this computer: its id, when it was started (in ticks after the boot), and the boot."""

    pid: int
    start_ticks: int
    boot_id: str

    def from_this_boot(self) -> bool:
        """Whether this computer has not been restarted since."""
        return self.boot_id == _boot_id()

    def alive(self) -> bool:
        """Whether that very process still runs; one that ended and was not waited for does not."""
        return self.from_this_boot() and _start_ticks(self.pid) == self.start_ticks

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for its end, as anybody's child; whether it has ended."""
        with self._descriptor() as fd:
            return fd is None or _ended(fd, seconds)

    def end(self, *, grace: float) -> None:
        """SIGTERM, `grace` seconds (none of both where it is 0), SIGKILL, wait. Does nothing where it has ended.

        A process that was given the same id meanwhile is not touched. Raises PermissionError where it is another
        user's.
        """
        with self._descriptor() as fd:
            if fd is None:
                return
            with contextlib.suppress(ProcessLookupError):
                if grace:
                    signal.pidfd_send_signal(fd, signal.SIGTERM)
                    if _ended(fd, grace):
                        return
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                _ended(fd, _KILL_SECONDS)

    @contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """A descriptor of the process (pidfd_open(2)), which cannot come to mean another one; None where it is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield fd if self.alive() else None
        finally:
            os.close(fd)


def _ended(fd: int, seconds: float) -> bool:
    """Wait for the end of the process behind a pidfd; whether it came."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def identity_of(pid: int) -> ProcessIdentity | None:
    """The process that has the id `pid` now; None where there is none."""
    ticks = _start_ticks(pid)
    return None if ticks is None else ProcessIdentity(pid, ticks, _boot_id())


def processes_with_argument(text: str) -> list[ProcessIdentity]:
    """The live processes of this user that have `text` in one of their arguments."""
    wanted, found = text.encode(), []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "cmdline").read_bytes() and entry.stat().st_uid == os.getuid():
                found.append(identity_of(int(entry.name)))
    return [identity for identity in found if identity and identity.pid != os.getpid()]


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _start_ticks(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name stands in parentheses and may itself hold any character.
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in _DEAD_STATES else int(fields[_START_TICKS])

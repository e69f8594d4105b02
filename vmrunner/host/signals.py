"""SIGINT, SIGTERM and SIGHUP as an exception in the main thread, held back while something is being cleaned up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vmrunner.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    """How many clean-ups are under way, and the signal that arrived during one."""

    shields = 0
    pending: int | None = None


def _handle(number: int, _frame: FrameType | None) -> None:
    if _State.shields:
        _State.pending = number
    else:
        raise Interrupted(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals that end a program into `Interrupted` for the time of the block; main thread only.

    A signal that is ignored stays ignored: nohup(1) and the shells' background jobs ask for that.
    """
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold signals back for the time of the block, which must be short and bounded; raise afterwards what came."""
    _State.shields += 1
    try:
        yield
    finally:
        _State.shields -= 1
        if not _State.shields and _State.pending is not None:
            number, _State.pending = _State.pending, None
            raise Interrupted(number)

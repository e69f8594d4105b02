"""The person's end of a session: their terminal's mode and size, and the signals it sends."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from vmrunner.host.signals import shielded

_FALLBACK_SIZE = os.terminal_size((80, 24))


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Pass every key on as it is typed, Ctrl-C too, for the time of the block; nothing where `fd` is no terminal.

    The mode is put back however the block ends. Line editing, echo and signals are the far side's work meanwhile.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        # Not TCSAFLUSH: what was typed ahead is meant for the far side.
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        # The terminal may be gone by now. Not TCSADRAIN: output that nobody reads would keep us here.
        with shielded(), contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


def terminal_size(*fds: int) -> os.terminal_size:
    """The size of the first of `fds` that is a terminal with a size; 80 columns and 24 lines where none is."""
    for fd in fds:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            if size.columns and size.lines:
                return size
    return _FALLBACK_SIZE


class SignalInbox:
    """Signals as something to wait for: `fd` is readable when some have come."""

    def __init__(self, fd: int, heeded: frozenset[int]) -> None:
        self.fd = fd
        self._heeded = heeded

    def take(self) -> list[int]:
        """The numbers of the signals that came since the last call, in their order."""
        try:
            return [number for number in os.read(self.fd, 4096) if number in self._heeded]
        except BlockingIOError:
            return []


@contextmanager
def caught_signals(*numbers: signal.Signals) -> Iterator[SignalInbox]:
    """Collect signals in a SignalInbox for the time of the block, in place of what they do otherwise; main thread only.

    So they cannot interrupt a library that holds a lock, and wake a poll(2) at once. A signal that is ignored stays
    ignored; one that nobody took from the inbox is raised again when the block ends.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    inbox = SignalInbox(reader, frozenset(heeded))
    former_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in heeded}
    try:
        yield inbox
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_fd)
        untaken = inbox.take()
        os.close(reader)
        os.close(writer)
        for late in untaken:
            signal.raise_signal(late)

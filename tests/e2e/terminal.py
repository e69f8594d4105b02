"""Somebody at a terminal in which vmrunner runs: types, looks at the screen, changes the window's size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import CommandLine

_PATIENCE_SECONDS = 60.0


class Terminal:
    """A terminal with one vmrunner in it. Made by `terminal`."""

    def __init__(self, process: subprocess.Popen[bytes], keys: int, tty: int) -> None:
        self._process = process
        self._keys = keys
        self._tty = tty
        self._shown = b""

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._keys, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window; the kernel tells the program."""
        fcntl.ioctl(self._keys, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def see(self, pattern: str, *, seconds: float = _PATIENCE_SECONDS) -> str:
        """Wait until the screen shows something new that `pattern` matches; all up to that counts as seen."""
        until = time.monotonic() + seconds
        while True:
            text = self._shown.decode(errors="replace")
            if found := re.search(pattern, text):
                self._shown = text[found.end() :].encode()
                return found[0]
            assert time.monotonic() < until, f"{pattern!r} is not in {text!r}"
            self._look(0.05)

    def end(self, *, seconds: float = 20.0) -> int:
        """The exit code of vmrunner, which is about to end."""
        until = time.monotonic() + seconds
        while (code := self._process.poll()) is None:
            assert time.monotonic() < until, f"it goes on, and the screen shows {self.rest!r}"
            self._look(0.05)
        while self._look(0):
            pass
        return code

    def _look(self, seconds: float) -> bool:
        """Take in what the screen shows more, if anything does so in this time."""
        if not select.select([self._keys], [], [], seconds)[0]:
            return False
        self._shown += os.read(self._keys, 65536)
        return True

    @property
    def rest(self) -> str:
        """What the screen has shown since something was waited for."""
        return self._shown.decode(errors="replace")

    @property
    def is_raw(self) -> bool:
        """Whether keys are passed on as they are typed, without an echo of the terminal's own."""
        return not termios.tcgetattr(self._tty)[3] & (termios.ICANON | termios.ECHO)


@contextmanager
def terminal(vmrunner: CommandLine, *arguments: str | Path) -> Iterator[Terminal]:
    """Run vmrunner in a terminal of its own, 100 columns wide and 40 lines high, as its controlling one."""
    keys, tty = os.openpty()
    fcntl.ioctl(keys, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", *vmrunner.program, *map(str, arguments)],
        env={**vmrunner.environment, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=tty,
        stdout=tty,
        stderr=tty,
    )
    try:
        yield Terminal(process, keys, tty)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(keys)
        os.close(tty)

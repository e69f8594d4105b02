"""Bytes between a remote command and this process's own descriptors, all three streams side by side.

Each stream has a thread, since paramiko offers nothing to wait on for room to send. None of them reads more
before what it has is written, so SSH's windows and the kernel's pipes hold the faster side back.
"""

from __future__ import annotations

import os
import select
import selectors
import threading
from collections.abc import Callable
from dataclasses import dataclass

import paramiko

_CHUNK_BYTES = 1 << 17
_END_OF_TRANSMISSION = b"\x04"
_BROKEN = (OSError, EOFError, paramiko.SSHException)


@dataclass(frozen=True)
class LocalFailure:
    """One of this process's own streams could not be written."""

    stream: str
    error: OSError


class Pump:
    """The three streams of one channel. `fd` becomes readable when one of the two outputs has ended.

    Use as a context manager; leaving it ends the thread that reads standard input.
    """

    def __init__(
        self, channel: paramiko.Channel, *, stdin: int, stdout: int, stderr: int, terminal: bool
    ) -> None:
        self.failure: LocalFailure | None = None
        self.fd, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped, self._stop = os.pipe2(os.O_CLOEXEC)
        self._channel = channel
        self._terminal = terminal
        self._outputs = [
            self._thread("stdout", lambda: self._copy_out(channel.recv, stdout, "standard output")),
            self._thread("stderr", lambda: self._copy_out(channel.recv_stderr, stderr, "standard error")),
        ]
        self._input = self._thread("stdin", lambda: self._copy_in(stdin))

    def __enter__(self) -> Pump:
        for thread in (*self._outputs, self._input):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b"x")
        # A thread that is stuck in a write to a reader who does not read is left to the end of the process,
        # with the descriptors it may still use.
        for thread in (*self._outputs, self._input):
            thread.join(0.5)
        if not any(thread.is_alive() for thread in (*self._outputs, self._input)):
            for fd in (self.fd, self._wake, self._stopped, self._stop):
                os.close(fd)

    @property
    def output_ended(self) -> bool:
        """Whether all that the command printed has been written."""
        return not any(thread.is_alive() for thread in self._outputs)

    @staticmethod
    def _thread(name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=work, name=f"session-{name}", daemon=True)

    def _copy_out(self, receive: Callable[[int], bytes], fd: int, name: str) -> None:
        try:
            while chunk := _received(receive):
                write_all(fd, chunk)
        except OSError as error:
            self.failure = self.failure or LocalFailure(name, error)
            os.write(self._wake, b"x")
            # The rest is taken from the guest all the same: dropbear tells the end of a command only after it.
            while _received(receive):
                pass
        finally:
            os.write(self._wake, b"x")

    def _copy_in(self, fd: int) -> None:
        try:
            while chunk := self._read(fd):
                self._channel.sendall(chunk)
            if not self._channel.closed:
                self._end_input()
        except _BROKEN:
            # The command has ended, or the connection is gone; whoever waits for the output finds out which.
            return

    def _end_input(self) -> None:
        if self._terminal:
            # A pseudo-terminal has no end of file but the character for it.
            self._channel.sendall(_END_OF_TRANSMISSION)
        self._channel.shutdown_write()

    def _read(self, fd: int) -> bytes:
        """What is there to read; nothing at the end of the input, or when the pump stops."""
        # Not epoll, which does not take regular files.
        with selectors.PollSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ)
            if fd != self._stopped:
                selector.register(fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._stopped in ready:
                    return b""
                try:
                    return os.read(fd, _CHUNK_BYTES)
                except BlockingIOError:
                    continue
                except OSError:
                    return b""


def _received(receive: Callable[[int], bytes]) -> bytes:
    """The next bytes from the guest; none where the stream or the connection has ended."""
    try:
        return receive(_CHUNK_BYTES)
    except _BROKEN:
        return b""


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, waiting for room, also where somebody made `fd` non-blocking. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])

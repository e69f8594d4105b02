"""The guest's serial console: the far end of QEMU's socket, with the person's terminal on this one."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmrunner.errors import GuestLost, UsageError
from vmrunner.events import Emit, Note
from vmrunner.guest.pump import write_all
from vmrunner.guest.terminal import raw_mode, terminal_size
from vmrunner.host.files import try_lock

ESCAPE = b"\x1d"
"""Ctrl-], as telnet and virsh have it."""

_CHUNK_BYTES = 65536


def run_console(socket_path: Path, *, stdin: int, stdout: int, emit: Emit) -> None:
    """Connect `stdin` and `stdout` to the serial line until the person types Ctrl-], or the machine ends.

    Where `stdin` is a terminal it passes every key on; where it is none all of it is sent, and the output is shown on
    until the machine ends. What the guest printed before is in its serial log. A serial line has no size: a
    note says which stty(1) command tells the guest.

    Raises UsageError where another console of this machine is open (QEMU takes one client, and lets a second wait
    without a word), GuestLost where nobody listens; BrokenPipeError where nobody reads `stdout`.
    """
    interactive = os.isatty(stdin)
    with _only_client(socket_path), _connected(socket_path) as line:
        if interactive:
            size = terminal_size(stdin)
            emit(
                Note(
                    "leave the console with Ctrl-]; for the guest to know this window: "
                    f"stty rows {size.lines} columns {size.columns}"
                )
            )
        with raw_mode(stdin):
            ended = _exchange(line, stdin=stdin, stdout=stdout, escape=ESCAPE if interactive else b"")
    if ended:
        emit(Note("the machine has ended"))


@contextmanager
def _only_client(socket_path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        lock = os.open(
            socket_path.with_name(f"{socket_path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        stack.callback(os.close, lock)
        if not try_lock(lock):
            raise UsageError(
                "this machine's console is already open in another terminal",
                hint="leave it there with Ctrl-], or look on with `vmrunner logs -f`",
            )
        yield


@contextmanager
def _connected(socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(os.fspath(socket_path))
        except OSError as error:
            raise GuestLost(
                "the machine's console does not answer",
                hint="`vmrunner ps` shows whether the machine still runs",
                details=f"{socket_path}: {error.strerror}",
            ) from error
        line.setblocking(False)
        yield line


def _exchange(line: socket.socket, *, stdin: int, stdout: int, escape: bytes) -> bool:
    """Pass bytes both ways; whether it ended from the machine's side.

    A guest that does not listen holds a pipe back; of a terminal the keys are read on, for the escape may be next.
    """
    unsent = b""
    input_open = True
    while True:
        listening = input_open and (bool(escape) or not unsent)
        ready = _wait(line, stdin if listening else None, writing=bool(unsent))
        if stdin in ready:
            typed = _typed(stdin)
            if escape and escape in typed:
                return False
            input_open = bool(typed)
            unsent += typed
        if line.fileno() in ready and not _show(line, stdout):
            return True
        unsent = _send(line, unsent)


def _wait(line: socket.socket, stdin: int | None, *, writing: bool) -> set[int]:
    """Wait for the machine or the person, however long they take: both can end this."""
    with selectors.PollSelector() as selector:
        selector.register(line, selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0))
        if stdin is not None:
            selector.register(stdin, selectors.EVENT_READ)
        return {key.fd for key, _ in selector.select()}


def _typed(stdin: int) -> bytes:
    """What there is to read; nothing at the end, which a terminal that is gone also is."""
    try:
        return os.read(stdin, _CHUNK_BYTES)
    except OSError:
        return b""


def _show(line: socket.socket, stdout: int) -> bool:
    """Write out what the guest printed; False where the line has ended."""
    try:
        printed = line.recv(_CHUNK_BYTES)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    write_all(stdout, printed)
    return bool(printed)


def _send(line: socket.socket, data: bytes) -> bytes:
    """Send what the line takes now, and return the rest."""
    if not data:
        return b""
    try:
        return data[line.send(data) :]
    except BlockingIOError:
        return data
    except ConnectionError:
        # The end of the line is noticed, and told, when it is read.
        return b""

"""The serial console, over a unix socket as QEMU offers it."""

from __future__ import annotations

import contextlib
import os
import socket
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmrunner.errors import GuestLost, Interrupted, UsageError, exit_code_of
from vmrunner.events import Event, Note
from vmrunner.guest.console import run_console
from vmrunner.host.deadline import Deadline


class Serial:
    """QEMU's end: takes one client."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.received = b""
        self.client: socket.socket | None = None
        self.threads: list[threading.Thread] = []

    def hang_up(self) -> None:
        """The machine ends."""
        assert self.client
        self.client.shutdown(socket.SHUT_RDWR)

    def serve(self, *, greet: bytes = b"", until: bytes | None = None, then: bytes = b"") -> threading.Thread:
        """Greet a client, wait for `until`, answer `then` and hang up; or wait for the client to go."""

        def work() -> None:
            try:
                client, _ = self.listener.accept()
            except OSError:  # nobody came before the end of the test
                return
            self.client = client
            with client, contextlib.suppress(ConnectionError):
                client.sendall(greet)
                while until is None or until not in self.received:
                    data = client.recv(65536)
                    if not data:
                        return
                    self.received += data
                client.sendall(then)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread


@pytest.fixture
def serial(tmp_path: Path) -> Iterator[Serial]:
    one = Serial(tmp_path / "s")
    yield one
    with contextlib.suppress(OSError):
        one.listener.shutdown(socket.SHUT_RDWR)
    for thread in one.threads:
        thread.join(5)
    one.listener.close()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def run(serial: Serial, *, stdin: int, tmp_path: Path) -> tuple[bytes, list[Event]]:
    events: list[Event] = []
    output = tmp_path / "screen"
    with output.open("wb") as screen:
        run_console(serial.path, stdin=stdin, stdout=screen.fileno(), emit=events.append)
    return output.read_bytes(), events


def test_a_pipe_is_sent_whole_and_the_output_shown_to_the_end(serial: Serial, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"x" * 300_000 + b"\x1d\nend")
    thread = serial.serve(greet=b"login: \xff", until=b"end", then=b"bye")
    with script.open("rb") as stdin:
        shown, events = run(serial, stdin=stdin.fileno(), tmp_path=tmp_path)
    thread.join(5)
    assert serial.received == script.read_bytes()
    assert shown == b"login: \xffbye"
    assert events == [Note("the machine has ended")]


def test_ctrl_right_bracket_leaves_and_puts_the_terminal_back(serial: Serial, tmp_path: Path) -> None:
    thread = serial.serve(greet=b"login: ")
    keys, tty = os.openpty()
    before = termios.tcgetattr(tty)

    def type_keys() -> None:
        patience = Deadline.after(5)
        while b"a\x03" not in serial.received and patience.pause(0.05):
            if termios.tcgetattr(tty) != before and not serial.received:
                os.write(keys, b"a\x03")
        os.write(keys, b"\x1d")

    hands = threading.Thread(target=type_keys)
    hands.start()
    shown, events = run(serial, stdin=tty, tmp_path=tmp_path)
    hands.join()
    thread.join(5)
    assert shown == b"login: "
    assert b"a\x03" in serial.received
    assert b"\x1d" not in serial.received
    assert termios.tcgetattr(tty) == before
    assert [isinstance(event, Note) and "Ctrl-]" in event.text for event in events] == [True]
    assert "stty rows 24 columns 80" in str(events)
    os.close(keys)
    os.close(tty)


def test_a_guest_that_does_not_listen_holds_a_pipe_back(serial: Serial, tmp_path: Path) -> None:
    accepted: list[socket.socket] = []

    def accept_only() -> None:
        client, _ = serial.listener.accept()
        accepted.append(client)
        time.sleep(0.3)
        client.close()

    thread = threading.Thread(target=accept_only)
    thread.start()
    with Path("/dev/zero").open("rb") as endless:
        began = time.monotonic()
        run(serial, stdin=endless.fileno(), tmp_path=tmp_path)
    assert time.monotonic() - began < 3
    thread.join()


def test_a_second_console_is_refused_at_once(serial: Serial, tmp_path: Path) -> None:
    serial.serve(greet=b"x")
    with pipe() as (reader, _), pipe() as (screen, output):
        first = threading.Thread(
            target=run_console,
            args=(serial.path,),
            kwargs={"stdin": reader, "stdout": output, "emit": lambda _event: None},
            daemon=True,
        )
        first.start()
        assert os.read(screen, 1) == b"x"
        with pytest.raises(UsageError, match="already open in another terminal") as caught:
            run(serial, stdin=reader, tmp_path=tmp_path)
        assert exit_code_of(caught.value) == 2
        assert "Ctrl-]" in str(caught.value.hint)
        serial.hang_up()
        first.join(5)
        assert not first.is_alive()


def test_a_machine_that_is_gone(tmp_path: Path) -> None:
    with pipe() as (reader, writer), pytest.raises(GuestLost, match="console does not answer") as caught:
        run_console(tmp_path / "none", stdin=reader, stdout=writer, emit=lambda _event: None)
    assert exit_code_of(caught.value) == 23
    assert "vmrunner ps" in str(caught.value.hint)


def test_a_reader_that_goes_away(serial: Serial) -> None:
    serial.serve(greet=b"hello")
    with pipe() as (reader, _):
        gone_reader, output = os.pipe()
        os.close(gone_reader)
        with pytest.raises(BrokenPipeError):
            run_console(serial.path, stdin=reader, stdout=output, emit=lambda _event: None)
        os.close(output)


def test_an_exception_puts_the_terminal_back(serial: Serial, tmp_path: Path) -> None:
    serial.serve(greet=b"x")
    keys, tty = os.openpty()
    before = termios.tcgetattr(tty)

    def interrupt(_event: Event) -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        run_console(serial.path, stdin=tty, stdout=tty, emit=interrupt)
    assert termios.tcgetattr(tty) == before
    os.close(keys)
    os.close(tty)

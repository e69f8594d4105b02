"""The person's terminal: raw and put back, its size, and signals as something to wait for."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_guest import local_guest

from vmrunner.errors import Interrupted
from vmrunner.guest.session import run_session
from vmrunner.guest.terminal import caught_signals, raw_mode, terminal_size
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible


@dataclass
class Person:
    """Somebody at a terminal: `keys` is their keyboard and screen, `tty` the program's end."""

    keys: int
    tty: int

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.keys, text)

    def see(self, wanted: bytes) -> bytes:
        """Wait until the screen shows something, and take all up to then."""
        shown = b""
        patience = Deadline.after(10)
        while wanted not in shown and not patience.passed:
            if select.select([self.keys], [], [], 0.05)[0]:
                shown += os.read(self.keys, 4096)
        assert wanted in shown, shown
        return shown


@pytest.fixture
def person() -> Iterator[Person]:
    keys, tty = os.openpty()
    someone = Person(keys, tty)
    someone.resize(100, 40)
    yield someone
    os.close(keys)
    os.close(tty)


def test_raw_mode_is_put_back(person: Person) -> None:
    before = termios.tcgetattr(person.tty)
    with raw_mode(person.tty):
        assert not termios.tcgetattr(person.tty)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert termios.tcgetattr(person.tty) == before


def test_raw_mode_is_put_back_after_an_error_and_after_a_signal(person: Person) -> None:
    before = termios.tcgetattr(person.tty)
    with pytest.raises(ValueError, match="x"), raw_mode(person.tty):
        raise ValueError("x")
    assert termios.tcgetattr(person.tty) == before
    with pytest.raises(Interrupted), interruptible(), raw_mode(person.tty):
        signal.raise_signal(signal.SIGTERM)
    assert termios.tcgetattr(person.tty) == before


def test_what_was_typed_ahead_is_kept(person: Person) -> None:
    person.type(b"early\n")
    with raw_mode(person.tty):
        assert os.read(person.tty, 10) == b"early\n"


def test_raw_mode_leaves_other_files_alone() -> None:
    with Path(os.devnull).open("rb") as null, raw_mode(null.fileno()):
        assert null.read() == b""


def test_a_terminal_that_goes_away_is_no_error() -> None:
    keys, tty = os.openpty()
    with raw_mode(tty):
        os.close(keys)
    os.close(tty)


def test_size_is_the_first_terminals(person: Person) -> None:
    with Path(os.devnull).open("rb") as null:
        assert terminal_size(null.fileno(), person.tty) == (100, 40)
        assert terminal_size(null.fileno()) == (80, 24)
    person.resize(0, 0)
    assert terminal_size(person.tty) == (80, 24)


def test_signals_wake_a_poll_and_are_told_in_order() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with caught_signals(signal.SIGUSR1, signal.SIGWINCH) as inbox:
        assert inbox.take() == []
        signal.raise_signal(signal.SIGWINCH)
        signal.raise_signal(signal.SIGUSR1)
        assert select.select([inbox.fd], [], [], 1)[0]
        assert inbox.take() == [signal.SIGWINCH, signal.SIGUSR1]
        assert inbox.take() == []
    assert signal.getsignal(signal.SIGUSR1) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught_signals(signal.SIGHUP) as inbox:
            signal.raise_signal(signal.SIGHUP)
            assert inbox.take() == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_nobody_took_is_not_lost() -> None:
    with pytest.raises(Interrupted) as caught, interruptible(), caught_signals(signal.SIGTERM):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143


def at_the_keyboard(person: Person, code: list[int], line: str | None) -> None:
    with local_guest() as (guest, _):
        code.append(
            run_session(
                guest,
                line,
                tty=True,
                stdin=person.tty,
                stdout=person.tty,
                stderr=person.tty,
                deadline=Deadline.after(10),
            )
        )


def test_a_session_at_a_terminal(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, kind, Ctrl-C, a resize, and the exit code, as a person sees them."""
    monkeypatch.setenv("TERM", "vt220")
    before = termios.tcgetattr(person.tty)

    def type_and_look() -> None:
        person.see(b"$ ")
        person.type(b"stty size; echo $TERM\n")
        person.see(b"40 100\r\nvt220\r\n")
        person.resize(120, 50)
        os.kill(os.getpid(), signal.SIGWINCH)
        person.type(b"sleep 0.3; stty size\n")
        person.see(b"50 120")
        person.type(b"echo now; sleep 100\n")
        person.see(b"now\r\n")
        person.type(b"\x03")
        person.see(b"$ ")
        person.type(b"exit 9\n")

    hands = threading.Thread(target=type_and_look)
    hands.start()
    code: list[int] = []
    at_the_keyboard(person, code, None)
    hands.join()
    assert code == [9]
    assert termios.tcgetattr(person.tty) == before


def test_a_signal_ends_a_shell_at_a_terminal(person: Person) -> None:
    before = termios.tcgetattr(person.tty)

    def look_and_kill() -> None:
        person.see(b"$ ")
        os.kill(os.getpid(), signal.SIGTERM)

    hands = threading.Thread(target=look_and_kill)
    hands.start()
    began = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        at_the_keyboard(person, [], None)
    hands.join()
    assert caught.value.exit_code == 143
    assert time.monotonic() - began < 4
    assert termios.tcgetattr(person.tty) == before


def test_the_end_of_input_is_typed_where_there_is_no_keyboard() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"hello\n")
    os.close(writer)
    shown_in, shown = os.pipe()
    with local_guest() as (guest, _):
        code = run_session(
            guest, "cat", tty=True, stdin=reader, stdout=shown, stderr=shown, deadline=Deadline.after(10)
        )
    os.close(shown)
    with os.fdopen(shown_in, "rb") as screen:
        assert screen.read().count(b"hello\r\n") == 2
    os.close(reader)
    assert code == 0

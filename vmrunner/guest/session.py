"""One command, or a login shell, in the guest, with this process's own streams: what `exec` and `ssh` are made of."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shlex
import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import paramiko

from vmrunner.errors import GuestLost, HostError, Interrupted, VmrunnerError
from vmrunner.guest.exit_signals import signal_that_ended
from vmrunner.guest.pump import LocalFailure, Pump
from vmrunner.guest.ssh import ConnectionLost, Guest, closing_channel
from vmrunner.guest.terminal import SignalInbox, caught_signals, raw_mode, terminal_size
from vmrunner.host.deadline import Deadline

log = logging.getLogger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 0.2
# Between the end of the output and the exit status, which sshd sends together.
_STATUS_SECONDS = 0.005
_DEATH_SECONDS = 1.0
# How long an interrupted command may take to clean up before it is killed.
_GRACE_SECONDS = 5.0
_KILL_SECONDS = 10.0
_UNKNOWN_SIGNAL_CODE = 255
# Each session is a child of the connection's own process. OpenSSH makes it the leader of a process group, dropbear
# leaves it in that of the connection, so it is found by descent; who has left for a session of its own, as a daemon does,
# is not meant. Without a program in it: each costs 50 to 100 ms where the processor is emulated.
# The numbers are printed, and taken as further arguments, since children of a process that is gone are nobody's.
_SIGNAL_SESSIONS = """\
signal=$1; shift; found=$*
session_of() { read -r stat <"/proc/$1/stat" || return; set -- ${stat##*) }; session=$4; }
children_of() { children=; for task in /proc/$1/task/*; do some=; read -r some <"$task/children"; children="$children $some"; done; }
take() {
    found="$found $1"; children_of "$1"
    for child in $children; do session_of "$child" && [ "$session" = "$2" ] && take "$child" "$2"; done
}
{
    children_of $PPID
    for child in $children; do [ "$child" = $$ ] || { session_of "$child" && take "$child" "$session"; }; done
    [ -z "$found" ] || kill "-$signal" $found
} 2>/dev/null
echo $found
"""
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


def shell_line(
    argv: Sequence[str], *, workdir: str | None = None, environment: Mapping[str, str] = _NO_VARIABLES
) -> str:
    """The line that makes the guest's shell start the program `argv`, as it is, in its own place.

    Where `workdir` cannot be entered, env(1) says so and the exit code is 125.
    """
    words = list(argv)
    if workdir is not None or environment:
        directory = [] if workdir is None else [f"--chdir={workdir}"]
        words = ["env", *directory, "--", *(f"{name}={value}" for name, value in environment.items()), *words]
    return f"exec {shlex.join(words)}"


def run_session(
    guest: Guest, line: str | None, *, tty: bool, stdin: int, stdout: int, stderr: int, deadline: Deadline
) -> int:
    """Run the shell line, or a login shell where it is None, and return its exit code: 128 + n for signal n.

    The three streams are passed on byte for byte; it returns when the command has ended and all it printed is written,
    whether or not `stdin` has ended. With `tty` the command gets a terminal of the size and kind of ours, which
    passes every key on. `deadline` is for the start alone.

    A SIGINT, SIGTERM or SIGHUP is passed on to the command (as a SIGHUP with `tty`), which is killed where it does not end
    in 5 seconds; so are the other commands of this connection. Main thread only.

    Raises Interrupted then; GuestLost, or what the guest's `alive` raises, where the guest goes away; BrokenPipeError
    where nobody reads `stdout` or `stderr` any more, HostError where they cannot be written.
    """
    size = terminal_size(stdin, stdout)

    def start(channel: paramiko.Channel) -> None:
        if tty:
            channel.get_pty(os.environ.get("TERM") or "dumb", size.columns, size.lines)
        if line is None:
            channel.invoke_shell()
        else:
            channel.exec_command(line)

    try:
        channel = guest.open_channel(start, deadline=deadline)
    except ConnectionLost as error:
        raise GuestLost(f"the command could not be started: {error}") from error
    with (
        closing_channel(channel),
        caught_signals(*_ENDING, *([signal.SIGWINCH] if tty else [])) as signals,
        raw_mode(stdin) if tty else contextlib.nullcontext(),
        Pump(channel, stdin=stdin, stdout=stdout, stderr=stderr, terminal=tty) as pump,
    ):
        session = _Session(guest, channel, pump, signals, (stdin, stdout) if tty else None)
        # The pump's threads end with the channel, so it goes first.
        with closing_channel(channel):
            return session.follow()


class _Session:
    """A command under way, and who may end it: itself, a person, a reader that goes away, or the machine."""

    def __init__(
        self,
        guest: Guest,
        channel: paramiko.Channel,
        pump: Pump,
        signals: SignalInbox,
        terminal: tuple[int, int] | None,
    ) -> None:
        self._guest = guest
        self._channel = channel
        self._pump = pump
        self._signals = signals
        self._terminal = terminal

    def follow(self) -> int:
        """Wait for the end, and say what it was."""
        while not self._ended:
            ending = self._wait(_TICK_SECONDS)
            if ending is not None:
                # A shell at a terminal does not heed SIGTERM, but its terminal's end.
                self._end_remote(signal.SIGHUP if self._terminal else ending)
                raise Interrupted(ending)
            if self._pump.failure:
                self._end_remote(signal.SIGPIPE)
                raise _as_error(self._pump.failure)
            self._guest.check_alive()
        if self._pump.failure:
            raise _as_error(self._pump.failure)
        return self._exit_code()

    @property
    def _ended(self) -> bool:
        return self._pump.output_ended and self._channel.exit_status_ready()

    def _wait(self, seconds: float) -> signal.Signals | None:
        """Wait for something to happen; the signal that asks for the end, if one came."""
        with selectors.PollSelector() as selector:
            selector.register(self._signals.fd, selectors.EVENT_READ)
            if self._pump.output_ended:
                seconds = min(seconds, _STATUS_SECONDS)
            else:
                selector.register(self._pump.fd, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if self._pump.fd in ready:
            os.read(self._pump.fd, 16)
        for number in self._signals.take():
            if number in _ENDING:
                return signal.Signals(number)
            self._resize()
        return None

    def _resize(self) -> None:
        size = terminal_size(*(self._terminal or ()))
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.resize_pty(size.columns, size.lines)

    def _exit_code(self) -> int:
        code = self._channel.recv_exit_status()
        if code != -1:
            return code
        number = signal_that_ended(self._channel)
        if number is not None:
            return 128 + number
        if self._guest.connected:
            return _UNKNOWN_SIGNAL_CODE
        patience = Deadline.after(_DEATH_SECONDS)
        while patience.pause(0.02):
            self._guest.check_alive()
        raise GuestLost("the connection to the guest broke while a command ran in it")

    def _end_remote(self, number: signal.Signals) -> None:
        """Send the command a signal, give it time to clean up, and kill what is left of it.

        Closing the channel alone leaves it running until it next reads or writes. sshd refuses SSH's own `signal`
        request for root (OpenSSH 9.2, session.c: it needs privilege separation).
        """
        with contextlib.suppress(ConnectionLost, VmrunnerError):
            deadline = Deadline.after(_KILL_SECONDS)
            processes = self._signal(number, deadline=deadline)
            log.debug("session: sent %s to the processes %s", number.name, processes)
            patience = Deadline.after(_GRACE_SECONDS)
            while not self._channel.exit_status_ready() and not patience.passed and not self._wait(0.02):
                self._guest.check_alive()
            if processes and not self._ended:
                self._signal(signal.SIGKILL, *processes, deadline=deadline.within(_KILL_SECONDS))

    def _signal(self, number: signal.Signals, *also: str, deadline: Deadline) -> list[str]:
        """Send a signal to all that runs in this connection's sessions, and to the processes `also`."""
        words = ["exec", "sh", "-c", _SIGNAL_SESSIONS, "sh", number.name.removeprefix("SIG"), *also]
        return self._guest.execute(words, deadline=deadline).stdout.split()


def _as_error(failure: LocalFailure) -> Exception:
    if isinstance(failure.error, BrokenPipeError):
        return failure.error
    return HostError(
        f"{failure.stream} cannot be written: {failure.error.strerror}",
        hint="is the disk full? The command in the guest was ended",
    )

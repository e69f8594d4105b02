"""SFTP on a guest's connection, where every wait notices a machine that dies, and every error says whose it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import paramiko

from vmrunner.errors import GuestError, GuestLost, UsageError, VmrunnerError
from vmrunner.guest.ssh import ConnectionLost, Guest, closing_channel
from vmrunner.host.deadline import Deadline

_T = TypeVar("_T")

_BROKEN = (OSError, EOFError, paramiko.SSHException)
_TICK_SECONDS = 0.25
_SILENCE_SECONDS = 60.0
"""How long a guest may leave one packet unanswered, or take nothing of what we send."""


class _WatchedStream:
    """A channel for paramiko's SFTP client, whose own waits have no end."""

    def __init__(self, guest: Guest, channel: paramiko.Channel) -> None:
        self._guest = guest
        self._channel = channel
        self._owner = threading.get_ident()
        channel.settimeout(_TICK_SECONDS)

    def recv(self, count: int) -> bytes:
        """At least one byte; none at the end of the stream."""
        return self._watched(lambda: self._channel.recv(count))

    def send(self, data: bytes) -> int:
        """Send some of `data`; how much."""
        try:
            return self._watched(lambda: self._channel.send(data))
        except (*_BROKEN, VmrunnerError):
            if threading.get_ident() == self._owner:
                raise
            # paramiko asks for data ahead on a thread whose exceptions nobody takes; whoever waits for the
            # answers finds the connection in the same state.
            return len(data)

    def recv_ready(self) -> bool:
        """Whether `recv` would return at once."""
        return self._channel.recv_ready()

    def get_name(self) -> str:
        """What the client's log lines begin with."""
        return self._channel.get_name()

    def close(self) -> None:
        """End the stream."""
        self._channel.close()

    def _watched(self, operation: Callable[[], _T]) -> _T:
        patience = Deadline.after(_SILENCE_SECONDS)
        while not patience.passed:
            try:
                return operation()
            except TimeoutError:
                self._guest.check_alive()
        raise GuestLost(f"the guest did not answer over SFTP for {_SILENCE_SECONDS:.0f} s")


@contextmanager
def open_sftp(guest: Guest, *, deadline: Deadline) -> Iterator[paramiko.SFTPClient]:
    """An SFTP client on the guest's connection; `deadline` is for its start.

    Raises GuestError where the guest has no SFTP server, GuestLost where the connection breaks.
    """
    try:
        channel = guest.open_channel(lambda channel: channel.invoke_subsystem("sftp"), deadline=deadline)
    except ConnectionLost as error:
        raise GuestError(
            "the guest does not offer SFTP",
            hint="the image needs OpenSSH's sftp-server (Debian's package openssh-sftp-server)",
            details=str(error),
        ) from error
    with closing_channel(channel):
        # The client takes whatever has the methods of a channel that it uses.
        stream: paramiko.Channel = _WatchedStream(guest, channel)  # type: ignore[assignment]
        with in_guest(guest, "."):
            client = paramiko.SFTPClient(stream)
        yield client


@contextmanager
def in_guest(guest: Guest, path: str) -> Iterator[None]:
    """Say what failed in the guest, and whose matter it is, in place of paramiko's bare OSError."""
    try:
        yield
    except (EOFError, paramiko.SSHException) as error:
        guest.check_alive()
        raise GuestLost("the connection to the guest broke while files were copied") from error
    except UnicodeError as error:
        raise GuestError(
            f"a file name at `{path}` is not UTF-8",
            hint="SFTP cannot carry it here; copy it through tar with `vmrunner exec`",
        ) from error
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no `{path}` in the guest", hint="directories on the way to it are not made"
        ) from error
    except PermissionError as error:
        raise GuestError(
            f"the guest does not allow it: `{path}`",
            hint="the file system may be mounted read-only, or the file be immutable",
        ) from error
    except OSError as error:
        guest.check_alive()
        if not guest.connected:
            raise GuestLost("the connection to the guest broke while files were copied") from error
        raise GuestError(
            f"the guest's SFTP server failed on `{path}`",
            hint="it does not say why; often the disk is full (`df -h` in the guest), or it is a directory",
            details=str(error),
        ) from error

"""A real SSH server in this process, on a loopback port: it stands in for a guest's sshd."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from vmrunner.guest.key import LoginKey, make_login_key
from vmrunner.guest.ssh import Endpoint

Run = Callable[[str, paramiko.Channel], None]


def answer(code: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> Run:
    """What every command does: print, and end with this code."""

    def run(_command: str, channel: paramiko.Channel) -> None:
        channel.sendall(stdout)
        channel.sendall_stderr(stderr)
        channel.send_exit_status(code)
        channel.close()

    return run


def keep_running(_command: str, _channel: paramiko.Channel) -> None:
    """A command that does not end."""


class Terminal:
    """A pseudo-terminal of the server, for one channel."""

    def __init__(self, kind: str, columns: int, lines: int) -> None:
        self.kind = kind
        self.ours, self.theirs = os.openpty()
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Give it a size; the kernel tells the programs on it."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@dataclass
class FakeSshd:
    """The server; `run` is what it does with a command, `commands` what it was told so far.

    A login shell is the command "". `sftp` answers on the subsystem of that name.
    """

    login_key: LoginKey
    run: Run
    commands: list[str] = field(default_factory=list)
    logins: int = 0
    sftp: type[paramiko.SFTPServerInterface] | None = None
    terminals: dict[int, Terminal] = field(default_factory=dict)
    transports: list[paramiko.Transport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.key = self.login_key.host_private_key
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> Endpoint:
        """How a guest behind this server is reached."""
        return Endpoint(self.listener.getsockname()[1], self.login_key)

    def drop_connections(self) -> None:
        """Cut every connection, as a guest does whose network is gone; it goes on listening."""
        for transport in self.transports:
            transport.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self.listener.close()
        self.drop_connections()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            transport = _Transport(sock)
            transport.daemon = True
            transport.add_server_key(_as_paramiko(self.key))
            if self.sftp:
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, self.sftp)
            self.transports.append(transport)
            with contextlib.suppress(EOFError, paramiko.SSHException, OSError):
                transport.start_server(event=threading.Event(), server=_Session(self, transport))


class _Transport(paramiko.Transport):
    """Starts a command once the client has been told that it will run, as sshd does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.accepted: list[threading.Thread] = []

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]  # left out of the stubs
        while self.accepted:
            self.accepted.pop().start()


class _Session(paramiko.ServerInterface):
    def __init__(self, sshd: FakeSshd, transport: _Transport) -> None:
        self._sshd = sshd
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == "root" and key.get_base64() == self._sshd.login_key.public.split()[1]
        self._sshd.logins += known
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_pty_request(
        self, channel: paramiko.Channel, term: bytes, width: int, height: int, *_: object
    ) -> bool:
        self._sshd.terminals[channel.get_id()] = Terminal(term.decode(), width, height)
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, *_: object
    ) -> bool:
        self._sshd.terminals[channel.get_id()].resize(width, height)
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self.check_channel_exec_request(channel, b"")

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._sshd.commands.append(command.decode())
        self._transport.accepted.append(
            threading.Thread(target=self._run, args=(command.decode(), channel), daemon=True)
        )
        return True

    def _run(self, command: str, channel: paramiko.Channel) -> None:
        # The client may be gone; paramiko says that in three ways.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._sshd.run(command, channel)


def _as_paramiko(key: Ed25519PrivateKey) -> paramiko.PKey:

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))


@contextmanager
def running_sshd(run: Run | None = None) -> Iterator[FakeSshd]:
    """A server for the time of the block."""
    sshd = FakeSshd(make_login_key(), run or answer())
    try:
        yield sshd
    finally:
        sshd.close()

"""SSH into a guest: a connection that notices when the machine dies, and commands that can be polled.

paramiko is imported where it is used: that takes 0.06 s, in which a machine that is being restored can already answer.
paramiko's blocking calls have no deadline of their own in places (a channel request waits for ever), so each runs on a
worker thread while the caller's thread watches the deadline and the machine.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import logging
import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from vmrunner.errors import BootTimeout, GuestError, GuestLost
from vmrunner.guest.banner import open_answering_socket
from vmrunner.guest.exit_signals import heed_exit_signals
from vmrunner.guest.key import LoginKey
from vmrunner.host.deadline import Deadline

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)
logging.getLogger("paramiko").setLevel(logging.CRITICAL)
_T = TypeVar("_T")

_POLL_SECONDS = 0.01
_OUTPUT_LIMIT = 1 << 20
# The cheapest key exchange there is; under TCG it is a third of a login (measured).
_KEY_EXCHANGES = ("curve25519-sha256@libssh.org", "curve25519-sha256")


class ConnectionLost(Exception):
    """The SSH connection broke; the machine may well be alive, so it can be made again."""


@dataclass(frozen=True)
class Endpoint:
    """Where a guest's SSH server is reached, and what opens it; its host key is derived from that."""

    port: int
    login_key: LoginKey
    user: str = "root"


@dataclass(frozen=True)
class Completed:
    """A finished remote command."""

    code: int
    stdout: str
    stderr: str


def _load_paramiko() -> None:
    """Import it while sshd makes a process for us, which takes 0.3 s where the processor is emulated."""
    import paramiko  # noqa: F401


@contextlib.contextmanager
def closing_channel(channel: paramiko.Channel) -> Iterator[None]:
    """Close the channel when the block ends, also where the connection is broken, which paramiko's `close` minds."""
    import paramiko

    try:
        yield
    finally:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()


class RemoteCommand:
    """A command under way in the guest."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._stdout = bytearray()
        self._stderr = bytearray()

    def poll(self) -> Completed | None:
        """Take what has arrived; the result where the command has ended. Raises ConnectionLost.

        sshd may send the exit status before the last output, so the end of the output is waited for too.
        """
        # Asked first: whatever came before the end of the connection is there to be read after this.
        broken = self._channel.closed or not self._channel.get_transport().is_active()
        self._drain()
        if broken or (self._channel.eof_received and self._channel.exit_status_ready()):
            return self._finish()
        return None

    def _finish(self) -> Completed:
        self._drain()
        code = self._channel.recv_exit_status() if self._channel.exit_status_ready() else -1
        self._channel.close()
        if code == -1:
            raise ConnectionLost("the connection broke while a command ran")
        return Completed(code, self._stdout.decode(errors="replace"), self._stderr.decode(errors="replace"))

    def _drain(self) -> None:
        while self._channel.recv_ready():
            self._keep(self._stdout, self._channel.recv(65536))
        while self._channel.recv_stderr_ready():
            self._keep(self._stderr, self._channel.recv_stderr(65536))

    @staticmethod
    def _keep(buffer: bytearray, chunk: bytes) -> None:
        buffer += chunk[: _OUTPUT_LIMIT - len(buffer)]


class Guest:
    """One guest, reached by SSH. `alive` raises the right error where the machine has died."""

    def __init__(self, endpoint: Endpoint, *, alive: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._machine_alive = alive
        self._closed = False
        self._transport: paramiko.Transport | None = None
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "ssh")
        self._after_login: list[Callable[[paramiko.Transport], None]] = []

    @property
    def connected(self) -> bool:
        """Whether there is a connection that looks alive."""
        return self._transport is not None and self._transport.is_active()

    def connect(self, deadline: Deadline, *, is_up: bool = False) -> None:
        """Log in, trying until sshd answers. `is_up`: the guest has booted long ago, so it will not miss a packet.

        Raises BootTimeout where the deadline passes, GuestError where sshd shows another host key than this machine's or
        does not take the key, and whatever `alive` raises where the machine dies.
        """
        self.disconnect()
        last_seen = "nothing"
        while not deadline.passed:
            self.check_alive()
            sock = open_answering_socket(
                self._endpoint.port,
                deadline=deadline,
                alive=self.check_alive,
                is_up=is_up,
                meanwhile=_load_paramiko,
            )
            if sock is None:
                break
            import paramiko

            try:
                self._transport = self._log_in(sock, deadline)
                for action in self._after_login:
                    self._watched(partial(action, self._transport), deadline)
            except (OSError, EOFError, paramiko.SSHException, ConnectionLost) as error:
                if isinstance(error, paramiko.AuthenticationException):
                    raise GuestError("the guest's sshd does not take this machine's login key") from error
                last_seen = f"{type(error).__name__}: {error}"
                log.debug("ssh: %s", last_seen)
                sock.close()
                deadline.pause(_POLL_SECONDS)
            else:
                return
        raise BootTimeout(
            "the guest did not answer over SSH in time", details=f"last seen on the SSH port: {last_seen}"
        )

    def after_login(
        self,
        action: Callable[[paramiko.Transport], None],
        *,
        again: Callable[[paramiko.Transport], None],
        deadline: Deadline,
    ) -> None:
        """Do `action` on the connection, and `again` on each one that is made when this one broke.

        Raises ConnectionLost where the deadline passes, and what `action` raises.
        """
        if self._transport is None:
            raise ConnectionLost("there is no connection")
        transport = self._transport
        self._watched(lambda: action(transport), deadline)
        self._after_login.append(again)

    def execute(self, argv: Sequence[str] | str, *, deadline: Deadline) -> Completed:
        """Run what `begin` takes to its end. Raises ConnectionLost where it breaks or the deadline passes."""
        command = self.begin(argv, deadline=deadline)
        while not deadline.passed:
            self.check_alive()
            done = command.poll()
            if done:
                return done
            deadline.pause(_POLL_SECONDS)
        name = argv.split()[0] if isinstance(argv, str) else argv[0]
        raise ConnectionLost(f"`{name}` did not end in the guest in time")

    def begin(self, command: Sequence[str] | str, *, deadline: Deadline) -> RemoteCommand:
        """Start a command, or a text for root's shell, and return at once. Raises ConnectionLost."""
        line = command if isinstance(command, str) else shlex.join(command)
        log.debug("ssh: %s", line)
        return RemoteCommand(self.open_channel(lambda channel: channel.exec_command(line), deadline=deadline))

    def open_channel(
        self, prepare: Callable[[paramiko.Channel], None] = lambda _channel: None, *, deadline: Deadline
    ) -> paramiko.Channel:
        """A new session on the connection, asked for what `prepare` says (a command, a shell, a subsystem).

        Raises ConnectionLost where the guest refuses or the deadline passes, and whatever `alive` raises.
        """
        import paramiko

        if self._transport is None:
            raise ConnectionLost("there is no connection")
        transport = self._transport

        def start() -> paramiko.Channel:
            channel = transport.open_session(timeout=max(deadline.remaining, 0.1))
            prepare(channel)
            return channel

        try:
            return self._watched(start, deadline)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(f"the guest did not take a command: {error}") from error

    def check_alive(self) -> None:
        """Raise the error that says what ended the machine, if anything did; GuestLost after `close`."""
        if self._closed:
            raise GuestLost("the connection to the guest was closed")
        self._machine_alive()

    def disconnect(self) -> None:
        """Drop the connection, if there is one."""
        if self._transport:
            self._transport.close()
            self._transport = None

    def close(self) -> None:
        """Drop the connection for good; a login that goes on in another thread ends."""
        self._closed = True
        self.disconnect()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _log_in(self, sock: socket.socket, deadline: Deadline) -> paramiko.Transport:
        import paramiko

        # Small messages go at once; the kernel would wait for an answer that never comes (40 ms each, measured).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock)
        heed_exit_signals(transport)
        transport.daemon = True
        options = transport.get_security_options()
        options.kex = tuple(name for name in _KEY_EXCHANGES if name in options.kex) or options.kex
        options.key_types = ("ssh-ed25519",)
        try:
            self._watched(lambda: transport.start_client(timeout=max(deadline.remaining, 0.1)), deadline)
            self._check_host_key(transport)
            key = paramiko.Ed25519Key.from_private_key(io.StringIO(self._endpoint.login_key.private))
            self._watched(lambda: transport.auth_publickey(self._endpoint.user, key), deadline)
        except BaseException:
            transport.close()
            raise
        return transport

    def _check_host_key(self, transport: paramiko.Transport) -> None:
        shown = f"ssh-ed25519 {transport.get_remote_server_key().get_base64()}"
        expected = self._endpoint.login_key.host_key
        if shown != expected:
            raise GuestError(
                "the SSH server that answered shows another host key than this machine's",
                hint="something else answers on this machine's port; nothing was sent to it",
                details=f"expected: {expected}\nshown: {shown}",
            )

    def _watched(self, operation: Callable[[], _T], deadline: Deadline) -> _T:
        """Run a blocking call on the worker thread; give up where the machine dies or the deadline passes."""
        future = self._worker.submit(operation)
        while True:
            try:
                return future.result(_POLL_SECONDS)
            except concurrent.futures.TimeoutError:
                try:
                    self.check_alive()
                    if deadline.passed:
                        raise ConnectionLost("the guest did not answer over SSH in time") from None
                except BaseException:
                    self._abandon_worker()
                    raise

    def _abandon_worker(self) -> None:
        """Leave the thread that hangs in paramiko to the closing of its socket, and work on with a new one."""
        self.disconnect()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "ssh")

"""How a guest's SSH server lets people in, asked as somebody who has nothing to show."""

from __future__ import annotations

import socket

from vmrunner.errors import GuestError
from vmrunner.host.deadline import Deadline


def login_methods(port: int, *, user: str = "root", deadline: Deadline) -> tuple[str, ...]:
    """The ways to log in that the server at that port of this host offers, by their names in RFC 4252.

    Raises GuestError where it lets anybody in, or speaks no SSH.
    """
    import paramiko

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=max(deadline.remaining, 0.1)) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=max(deadline.remaining, 0.1))
                transport.auth_none(user)
            finally:
                transport.close()
    except paramiko.BadAuthenticationType as refusal:
        return tuple(sorted(refusal.allowed_types))
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise GuestError(f"the guest's SSH server cannot be spoken to: {error}") from error
    raise GuestError(f"the guest's SSH server lets `{user}` in without a key")

"""Ports of the guest's loopback that lead to this host: ssh(1)'s `-R`, for as long as the connection lasts.

QEMU's own way (`guestfwd`) takes one connection only, or a process for each, which its sandbox forbids.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from vmrunner.config.network_values import HostForward
from vmrunner.errors import GuestError, GuestLost
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.host.deadline import Deadline

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 128
"""How many a guest may have open at once; each has two threads here. What is more than that is closed at once."""

_LOOPBACK: Final = "127.0.0.1"
_CONNECT_SECONDS: Final = 10.0
_CHUNK_BYTES: Final = 1 << 16


def serve_host_forwards(guest: Guest, forwards: Sequence[HostForward], *, deadline: Deadline) -> None:
    """Have the guest listen on its loopback, now and after each new login, and connect what comes to this host.

    Raises GuestError where something in the guest has the port already, GuestLost where the connection breaks.
    """
    slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
    for forward in forwards:
        try:
            first = partial(_listen, forward=forward, slots=slots)
            guest.after_login(first, again=partial(_listen_again, listen=first), deadline=deadline)
        except ConnectionLost as error:
            raise GuestLost(
                f"the guest was lost while its port {forward.guest_port} was forwarded"
            ) from error


def _listen(
    transport: paramiko.Transport, *, forward: HostForward, slots: threading.BoundedSemaphore
) -> None:
    import paramiko

    def take(channel: paramiko.Channel, _origin: object, _server: object) -> None:
        # Called by the thread that all of the connection's packets come through.
        if not slots.acquire(blocking=False):
            log.debug("more than %d connections to port %d", MOST_CONNECTIONS, forward.guest_port)
            channel.close()
            return
        threading.Thread(target=_connect, args=(channel, forward, slots), daemon=True).start()

    try:
        transport.request_port_forward(_LOOPBACK, forward.guest_port, take)
    except paramiko.SSHException as error:
        raise GuestError(
            f"the guest does not forward its port {forward.guest_port} (`host-forwards` {forward}): {error}",
            hint="does something in the guest, or another vmrunner's session, have that port? then take another",
        ) from error


def _listen_again(transport: paramiko.Transport, *, listen: Callable[[paramiko.Transport], None]) -> None:
    """After the connection broke, the guest may hold the port for the old one: no reason to end a run."""
    try:
        listen(transport)
    except GuestError as error:
        log.warning("%s", error.message)


def _connect(channel: paramiko.Channel, forward: HostForward, slots: threading.BoundedSemaphore) -> None:
    """One connection, to its end; where nobody listens here, the guest's side is closed."""
    try:
        with contextlib.closing(channel):
            there = socket.create_connection((forward.address, forward.host_port), timeout=_CONNECT_SECONDS)
            with there:
                there.settimeout(None)
                back = threading.Thread(
                    target=_copy, args=(there.recv, channel.sendall, channel.shutdown_write), daemon=True
                )
                back.start()
                _copy(channel.recv, there.sendall, partial(there.shutdown, socket.SHUT_WR))
                back.join()
    except (OSError, EOFError) as error:
        log.debug("host forward %s: %s", forward, error)
    finally:
        slots.release()


def _copy(
    receive: Callable[[int], bytes], send: Callable[[bytes], object], end: Callable[[], object]
) -> None:
    """Bytes one way until that side ends; the other is told."""
    # Either side may break off at any time; whoever reads from it next finds that out.
    with contextlib.suppress(OSError, EOFError):
        while chunk := receive(_CHUNK_BYTES):
            send(chunk)
    with contextlib.suppress(OSError, EOFError):
        end()

"""Find out when a guest's sshd answers, through QEMU's user network.

QEMU accepts a forwarded connection at once, whether or not anything in the guest listens (measured), so being able to
connect says nothing: a guest is there when the server's `SSH-` banner (RFC 4253, 4.2) arrives.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable

from vmrunner.host.deadline import Deadline

_SHORTEST_INTERVAL_SECONDS = 0.4
_LONGEST_INTERVAL_SECONDS = 5.0
_PATIENT_INTERVAL_SECONDS = 3.0
# dropbear takes five at a time from one address that have not logged in.
_ATTEMPTS_OPEN = 4
_PEEK = b"SSH-"


def open_answering_socket(
    port: int,
    *,
    deadline: Deadline,
    alive: Callable[[], None],
    is_up: bool = False,
    meanwhile: Callable[[], None] | None = None,
) -> socket.socket | None:
    """A loopback connection on which a banner is waiting to be read, or None where the deadline passed.

    A first packet that the booting guest missed is sent again only after seconds, so fresh connections are tried while
    the older ones stay open. Each that reaches sshd costs the guest a process, so they come ever more slowly, until the
    guest refuses one: then its kernel is up, sshd is about to be, and the attempts are quick again.

    A guest that `is_up` misses nothing, so it gets time for one connection first. `meanwhile` is called as soon as the
    first attempt is under way.
    """
    pending: list[socket.socket] = []
    winner = None
    interval = _PATIENT_INTERVAL_SECONDS if is_up else _SHORTEST_INTERVAL_SECONDS
    try:
        while winner is None and not deadline.passed:
            alive()
            if len(pending) >= _ATTEMPTS_OPEN:
                pending.pop(0).close()
            _attempt(port, pending)
            if meanwhile:
                meanwhile()
                meanwhile = None
            opened = len(pending)
            winner = _first_with_banner(pending, deadline.within(interval), alive)
            refused = len(pending) < opened
            interval = (
                _SHORTEST_INTERVAL_SECONDS if refused else min(interval * 1.5, _LONGEST_INTERVAL_SECONDS)
            )
    finally:
        for sock in pending:
            if sock is not winner:
                sock.close()
    return winner


def _attempt(port: int, pending: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):  # nobody listens yet, or QEMU is gone: `alive` tells
        pending.append(socket.create_connection(("127.0.0.1", port), timeout=1))


def _first_with_banner(
    pending: list[socket.socket], deadline: Deadline, alive: Callable[[], None]
) -> socket.socket | None:
    with selectors.DefaultSelector() as selector:
        for candidate in pending:
            selector.register(candidate, selectors.EVENT_READ, candidate)
        while not deadline.passed:
            if not selector.get_map():
                deadline.pause(0.1)
                alive()
                continue
            for key, _ in selector.select(min(deadline.remaining, 0.1)):
                sock: socket.socket = key.data
                if _has_banner(sock):
                    return sock
                selector.unregister(sock)
                pending.remove(sock)
                sock.close()
    return None


def _has_banner(sock: socket.socket) -> bool:
    try:
        return sock.recv(len(_PEEK), socket.MSG_PEEK) == _PEEK
    except OSError:
        return False

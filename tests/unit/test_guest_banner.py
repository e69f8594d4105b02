"""Finding out when a server answers, with real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vmrunner.errors import GuestLost
from vmrunner.guest.banner import open_answering_socket
from vmrunner.host.deadline import Deadline

BANNER = b"SSH-2.0-dropbear_2025.88\r\n"


def is_alive() -> None:
    """A machine that lives."""


@contextlib.contextmanager
def server(answer: Callable[[int, socket.socket], None]) -> Iterator[int]:
    """The port of a server that does this with each connection (counted from 0)."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    connections.append(sock)
                    answer(len(connections) - 1, sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(2)
            for sock in connections:
                sock.close()


def say_nothing(_number: int, _sock: socket.socket) -> None:
    """QEMU's user network accepts like this, long before the guest listens."""


def test_a_server_that_answers_is_found_and_its_banner_is_still_to_be_read() -> None:
    with server(lambda _number, sock: sock.sendall(BANNER)) as port:
        sock = open_answering_socket(port, deadline=Deadline.after(5), alive=is_alive)
        assert sock is not None
        with sock:
            assert sock.recv(100) == BANNER


def test_a_server_that_accepts_and_says_nothing_is_none() -> None:
    with server(say_nothing) as port:
        began = time.monotonic()
        assert open_answering_socket(port, deadline=Deadline.after(0.15), alive=is_alive) is None
        assert time.monotonic() - began < 5


def test_a_server_that_answers_late_is_found_on_the_connection_that_waited() -> None:
    def answer_later(_number: int, sock: socket.socket) -> None:
        threading.Timer(0.1, sock.sendall, [BANNER]).start()

    with server(answer_later) as port:
        began = time.monotonic()
        sock = open_answering_socket(port, deadline=Deadline.after(5), alive=is_alive)
        assert sock is not None
        sock.close()
        assert 0.05 < time.monotonic() - began < 5


def test_a_later_connection_may_answer_first() -> None:
    def answer_second(number: int, sock: socket.socket) -> None:
        if number == 1:
            sock.sendall(BANNER)

    with server(answer_second) as port:
        sock = open_answering_socket(port, deadline=Deadline.after(5), alive=is_alive)
        assert sock is not None
        with sock:
            assert sock.recv(4) == b"SSH-"


def test_no_more_attempts_are_open_than_the_server_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropbear takes five from one address that have not logged in, and may see late that one was closed."""
    monkeypatch.setattr("vmrunner.guest.banner._SHORTEST_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr("vmrunner.guest.banner._LONGEST_INTERVAL_SECONDS", 0.02)
    taken: list[socket.socket] = []
    most = 0

    def count(_number: int, sock: socket.socket) -> None:
        nonlocal most
        taken.append(sock)
        most = max(most, sum(is_open(one) for one in taken))
        if len(taken) == 8:
            sock.sendall(BANNER)

    with server(count) as port:
        sock = open_answering_socket(port, deadline=Deadline.after(5), alive=is_alive)
        assert sock is not None
        sock.close()
    assert most == 4


def is_open(sock: socket.socket) -> bool:
    """Whether the other side has not closed this connection."""
    try:
        return sock.recv(1, socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True


def test_a_server_that_closes_is_none() -> None:
    with server(lambda _number, sock: sock.close()) as port:
        assert open_answering_socket(port, deadline=Deadline.after(0.1), alive=is_alive) is None


def test_another_protocol_is_none() -> None:
    with server(lambda _number, sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n")) as port:
        assert open_answering_socket(port, deadline=Deadline.after(0.1), alive=is_alive) is None


def test_a_port_on_which_nobody_listens_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert open_answering_socket(port, deadline=Deadline.after(0.1), alive=is_alive) is None


def test_nothing_is_tried_when_the_time_is_up() -> None:
    tried = []
    with server(lambda number, _sock: tried.append(number)) as port:
        assert open_answering_socket(port, deadline=Deadline.after(0), alive=is_alive) is None
    assert tried == []


def test_a_machine_that_dies_meanwhile_ends_the_wait() -> None:
    dies_at = time.monotonic() + 0.1

    def alive() -> None:
        if time.monotonic() > dies_at:
            raise GuestLost("QEMU ended")

    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(GuestLost):
        open_answering_socket(port, deadline=Deadline.after(5), alive=alive)
    assert time.monotonic() - dies_at < 0.5

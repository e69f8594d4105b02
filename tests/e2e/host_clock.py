"""How far a guest's clock is off: the host asks over TCP, and knows how long each answer took."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ROUNDS = 20
_PATIENCE_SECONDS = 240.0


@dataclass
class Comparison:
    """The answers of one guest, each as the least and the most that its clock may be ahead of the host's, in seconds."""

    port: int
    bounds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def offset(self) -> tuple[float, float]:
        """Between what the guest's clock is ahead of the host's: an answer was given after its question came, and before itself did."""
        return max(low for low, _ in self.bounds), min(high for _, high in self.bounds)

    def ask(self, guest: socket.socket) -> None:
        """Ask for the time some times over, each answer at once."""
        guest.settimeout(_PATIENCE_SECONDS)
        guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with guest, guest.makefile("rb") as answers:
            for _ in range(_ROUNDS):
                asked = time.time()
                guest.sendall(b"\n")
                shown = float(answers.readline())
                answered = time.time()
                self.bounds.append((shown - answered, shown - asked))
            guest.shutdown(socket.SHUT_WR)


@contextmanager
def host_clock() -> Iterator[Comparison]:
    """Listen on a loopback port of the host for one guest, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        comparison = Comparison(listener.getsockname()[1])
        thread = threading.Thread(target=lambda: comparison.ask(listener.accept()[0]), daemon=True)
        listener.settimeout(_PATIENCE_SECONDS)
        thread.start()
        yield comparison
        thread.join(10)
        assert not thread.is_alive(), "no guest asked for the host, or it did not answer"

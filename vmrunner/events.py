"""What happens during a run, as values: the library emits them, the command line shows them.

The library never prints. Everything a person or a log may want to see goes through an `Emit` callable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PhaseStarted:
    """A named part of the work began; `text` says what is being done, for a person."""

    name: str
    text: str


@dataclass(frozen=True)
class PhaseProgress:
    """How far a phase is. `total` is None where the amount is not known; `unit` is `bytes`, `files`, ..."""

    name: str
    done: int
    total: int | None
    unit: str = ""
    text: str = ""


@dataclass(frozen=True)
class PhaseFinished:
    """A phase ended after `seconds`; `text` says what came out of it, for a person."""

    name: str
    seconds: float
    text: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Note:
    """One line worth a person's attention."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Output:
    """Bytes that the tests' runner printed in the guest, as they came. `label` names the shard, if any."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    label: str = ""


Event = PhaseStarted | PhaseProgress | PhaseFinished | Note | Output
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An `Emit` for callers that do not want to know."""


@dataclass
class Phase:
    """A phase under way. Set `text` to say at its end what came out of it."""

    name: str
    emit: Emit
    text: str = ""
    seconds: float = 0.0

    def progress(self, done: int, total: int | None, unit: str = "", text: str = "") -> None:
        """Tell how far the phase is."""
        self.emit(PhaseProgress(self.name, done, total, unit, text))


@contextmanager
def phase(emit: Emit, name: str, text: str) -> Iterator[Phase]:
    """Announce a phase, time it by the monotonic clock, and tell its end, also when it fails."""
    emit(PhaseStarted(name, text))
    current = Phase(name, emit)
    began = time.monotonic()
    failed = True
    try:
        yield current
        failed = False
    finally:
        current.seconds = time.monotonic() - began
        emit(PhaseFinished(name, current.seconds, current.text, failed))


@dataclass
class Recorder:
    """An `Emit` that keeps every finished phase and hands each event on to `emit`."""

    emit: Emit
    phases: list[PhaseFinished] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, PhaseFinished):
            self.phases.append(event)
        self.emit(event)

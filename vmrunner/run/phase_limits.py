"""Limits of time for the phases of a run: what phase goes on decides when its waits end.

The events that tell of a phase's start and end come by here; every wait of the run has a `Deadline` that asks this for an
end earlier than its own. So no wait knows of phases, and one that began before a phase ends with it all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from vmrunner.config.units import Duration
from vmrunner.errors import RunTimeout, VmrunnerError
from vmrunner.events import Emit, Event, PhaseFinished, PhaseStarted
from vmrunner.host.deadline import SYSTEM_CLOCK, Clock, Deadline


class PhaseLimits:
    """What a run's phases may take, and which of them took longer; `exceeded` is the first that did.

    A limit of 0 is none. Phases may go on at once, in several threads.
    """

    def __init__(self, limits: Mapping[str, Duration], clock: Clock = SYSTEM_CLOCK) -> None:
        self.exceeded: str | None = None
        self._limits = {name: limit for name, limit in limits.items() if limit}
        self._clock = clock
        self._run_ends = float("inf")
        self._lock = threading.Lock()
        self._ends: dict[tuple[object, str], float] = {}

    def deadline(self, seconds: float) -> Deadline:
        """That of a run which may take `seconds` from now: each of its waits ends with the phases that go on, too."""
        whole = Deadline.after(seconds, self._clock, earlier=self.earliest_end)
        self._run_ends = whole.at
        return whole

    def earliest_end(self) -> float:
        """When the waits of now have to end, by the clock; when one phase has been too long, that is long ago."""
        with self._lock:
            if self.exceeded:
                return float("-inf")
            return min(self._ends.values(), default=float("inf"))

    def watching(self, emit: Emit) -> Emit:
        """An `Emit` that hands on to `emit`, and takes note of the phases; what goes on at once needs one each."""
        source = object()

        def watch(event: Event) -> None:
            self._take(source, event)
            emit(event)

        return watch

    def check(self) -> None:
        """Raise RunTimeout where a phase has been too long, for there may have been no wait in it that could end."""
        if self.exceeded:
            raise self._too_long(self.exceeded)

    def told(self, error: VmrunnerError) -> VmrunnerError:
        """The error that says which phase was too long, where that is what came before `error`."""
        if self.exceeded is None:
            return error
        instead = self._too_long(self.exceeded)
        if not isinstance(error, RunTimeout):
            instead.details = "\n".join(filter(None, (error.message, error.details)))
        instead.__cause__ = error
        return instead

    def _too_long(self, name: str) -> RunTimeout:
        return RunTimeout(
            f"the phase `{name}` took longer than {self._limits[name]}",
            hint=f"give it more with `--phase-timeout {name}=...`",
        )

    def _take(self, source: object, event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.name in self._limits:
            end = self._clock.now() + self._limits[event.name]
            # Where the whole run's time is up first, that is what ends it, however long its end takes.
            if end < self._run_ends:
                with self._lock:
                    self._ends[source, event.name] = end
        if isinstance(event, PhaseFinished):
            with self._lock:
                end = self._ends.pop((source, event.name), float("inf"))
                # Whoever catches what the phase raised finds the time up, and does not try another way.
                if self._clock.now() >= end:
                    self.exceeded = self.exceeded or event.name

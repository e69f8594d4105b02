"""Limits of time for the phases of a run: what phase goes on decides when its waits end.

The events that tell of a phase's start and end come by here; every wait of the run has a `Deadline` that asks this for an
end earlier than its own. So no wait knows of phases, and one that began before a phase ends with it all the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmrunner.config.units import Duration
from vmrunner.errors import RunTimeout, VmrunnerError
from vmrunner.events import Emit, Event, PhaseFinished, PhaseStarted
from vmrunner.host.deadline import SYSTEM_CLOCK, Clock


class PhaseLimits:
    """What a run's phases may take, and which of them took longer; `exceeded` is the first that did."""

    def __init__(self, limits: Mapping[str, Duration], clock: Clock = SYSTEM_CLOCK) -> None:
        self.exceeded: str | None = None
        self._limits = limits
        self._clock = clock
        self._ends: dict[str, float] = {}

    def earliest_end(self) -> float:
        """When the waits of now have to end, by the clock; when one phase has been too long, that is long ago."""
        if self.exceeded:
            return float("-inf")
        return min(tuple(self._ends.values()), default=float("inf"))

    def watching(self, emit: Emit) -> Emit:
        """An `Emit` that hands on to `emit`, and takes note of the phases."""

        def watch(event: Event) -> None:
            self._take(event)
            emit(event)

        return watch

    def told(self, error: VmrunnerError) -> VmrunnerError:
        """The error that says which phase was too long, where that is what came before `error`."""
        if self.exceeded is None:
            return error
        name, limit = self.exceeded, self._limits[self.exceeded]
        details = "\n".join(filter(None, (error.message, error.details)))
        instead = RunTimeout(
            f"the phase `{name}` took longer than {limit}",
            hint=f"give it more with `--phase-timeout {name}=...`",
            details=None if isinstance(error, RunTimeout) else details,
        )
        instead.__cause__ = error
        return instead

    def _take(self, event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.name in self._limits:
            self._ends[event.name] = self._clock.now() + self._limits[event.name]
        if isinstance(event, PhaseFinished):
            end = self._ends.pop(event.name, float("inf"))
            # Whoever catches what the phase raised finds the time up, and does not try another way.
            if self._clock.now() >= end:
                self.exceeded = self.exceeded or event.name

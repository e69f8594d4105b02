"""One deadline per run, handed down to everything that waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Clock:
    """The two things a wait needs from time, so that a test can give its own. Seconds, monotonic."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()


def _never() -> float:
    return float("inf")


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock after which no wait goes on.

    `earlier` may bring that forward for as long as it says so: the end of what is going on now.
    """

    at: float
    clock: Clock = SYSTEM_CLOCK
    earlier: Callable[[], float] = field(default=_never, compare=False)

    @classmethod
    def after(
        cls, seconds: float, clock: Clock = SYSTEM_CLOCK, *, earlier: Callable[[], float] = _never
    ) -> Self:
        """The deadline `seconds` from now."""
        return cls(clock.now() + seconds, clock, earlier)

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, self.clock.now() + seconds), self.clock, self.earlier)

    @property
    def end(self) -> float:
        """When it passes, as things are now."""
        return min(self.at, self.earlier())

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.end - self.clock.now())

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self.clock.now() >= self.end

    def pause(self, seconds: float) -> bool:
        """Sleep up to `seconds`, not past the deadline; False where the time was up before the sleep."""
        if self.passed:
            return False
        self.clock.sleep(min(seconds, self.remaining))
        return True

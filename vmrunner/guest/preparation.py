"""What a guest has to have done before it can be used, as the one command that does it.

A restored guest's clock stood still while its template lay on disk. To set it to a time would be late by as long as the
setting program takes to start (0.05 to 0.2 s where the processor is emulated), so it is moved by a difference instead,
which the host knows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

PREPARE = "/usr/lib/vmrunner/prepare"
"""The guest's program for it, a part of every image."""


@dataclass(frozen=True)
class Preparation:
    """What is to be done; nothing by default.

    `clock_shift` is in seconds. `hostname` and `machine_id` are names of the machine's own; empty ones stay what they
    are.
    """

    clock_shift: float = 0.0
    hostname: str = ""
    machine_id: str = ""

    def command(self) -> tuple[str, ...]:
        """The command for it; empty where there is nothing to do."""
        words = self._words()
        return (PREPARE, *words) if words else ()

    def command_for_run(self, run_id: str, *, undo: bool = False) -> tuple[str, ...]:
        """The command that also mounts all that the run `run_id` needs, and lets an armed unit go.

        `undo` first clears away what the run before left.
        """
        return (
            PREPARE,
            f"run={run_id}",
            *(("undo",) if undo else ()),
            *self._words(),
            "shares",
            "mounts",
            "go",
        )

    def _words(self) -> tuple[str, ...]:
        return (
            *((f"shift={self.clock_shift:.6f}",) if self.clock_shift else ()),
            *((f"hostname={self.hostname}",) if self.hostname else ()),
            *((f"machine-id={self.machine_id}",) if self.machine_id else ()),
        )


def clear_away_and_arm() -> tuple[str, ...]:
    """The command that clears a run away and starts the unit for the next one, at whose gate it waits."""
    return (PREPARE, "undo", "arm")

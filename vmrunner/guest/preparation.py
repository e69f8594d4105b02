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

    def command(self, *, undo: bool = False, shares: bool = False) -> tuple[str, ...]:
        """The command for it; empty where there is nothing to do.

        `undo` first clears away what the run before left, `shares` mounts the shares.
        """
        words = [
            *(("undo",) if undo else ()),
            *((f"shift={self.clock_shift:.6f}",) if self.clock_shift else ()),
            *((f"hostname={self.hostname}",) if self.hostname else ()),
            *((f"machine-id={self.machine_id}",) if self.machine_id else ()),
            *(("shares",) if shares else ()),
        ]
        return (PREPARE, *words) if words else ()

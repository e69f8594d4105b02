"""A seat with plain values, for tests that look at what comes of a run and never start a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from vmrunner.image.manifest import Image
from vmrunner.machine.plan import Network
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.seat import MachineFacts, ReadySeat, Start

FACTS = MachineFacts(
    name="vmrunner-1",
    image="debian",
    accelerator="tcg",
    accelerator_reason="no /dev/kvm",
    cpu_model="max",
    cpus=2,
    memory=1 << 30,
    qemu="7.2.22",
)

# It is looked at before a seat is ready, and no test here begins so early.
NO_IMAGE = cast("Image", None)


@dataclass
class SampleSeat:
    """A seat whose machine is `machine_seat`, if a test gives it one."""

    run: RunDirectory
    start: Start = "booted"
    running_seconds: float | None = None
    ready_seconds: float | None = None
    machine_seat: ReadySeat | None = None
    facts: MachineFacts = FACTS
    tool: NextestTool | None = None
    hostname: str | None = None
    has_store: bool = False
    network: Network = "restricted"
    dns: str | None = None
    image: Image = NO_IMAGE

    def ready(self) -> ReadySeat:
        """What the test gave."""
        assert self.machine_seat
        return self.machine_seat

    def finish(self, *, failed: bool) -> None:
        """Nothing to let go of."""

"""Where one run of the unit takes place: a machine of its own, or a long-lived VM that is there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from vmrunner.image.manifest import Image
from vmrunner.machine.machine import Machine
from vmrunner.machine.plan import MachinePlan, Network
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory

Start = Literal["restored", "booted", "reused"]


@dataclass(frozen=True)
class MachineFacts:
    """What the tests ran on, for the report. `memory` is in bytes."""

    name: str
    image: str
    accelerator: str
    accelerator_reason: str
    cpu_model: str
    cpus: int
    memory: int
    qemu: str

    @classmethod
    def of(
        cls, plan: MachinePlan, *, name: str, image: str, accelerator_reason: str, qemu: str
    ) -> MachineFacts:
        """The facts of a machine like `plan`; `qemu` is its version, `image` that one's name."""
        return cls(
            name=name,
            image=image,
            accelerator=plan.accelerator,
            accelerator_reason=accelerator_reason,
            cpu_model=plan.cpu_model,
            cpus=plan.cpus,
            memory=int(plan.memory),
            qemu=qemu,
        )


@dataclass(frozen=True)
class ReadySeat:
    """A machine that answers; `run` as it is seen from now on, for its shares may be the machine's own.

    `prelude` is the shell command that must go before the unit's start, `way_out` what to do where it fails; `afterwards`
    is left running in the guest when the unit has ended well.
    """

    machine: Machine
    run: RunDirectory
    prelude: str
    way_out: str | None = None
    afterwards: str = ""


class Seat(Protocol):
    """A machine on its way to a run, whose job is staged in `run`.

    `tool` is the nextest that has to be carried into it, None where it has one; `has_store`: it can see this host's Nix
    store. `running_seconds` is the time from QEMU's start to a guest that runs, `ready_seconds` that to the login; None
    where it did not come to that.
    """

    run: RunDirectory
    image: Image
    tool: NextestTool | None
    facts: MachineFacts
    network: Network
    dns: str | None
    hostname: str | None
    has_store: bool
    start: Start
    running_seconds: float | None
    ready_seconds: float | None

    def ready(self) -> ReadySeat:
        """Wait for the machine."""

    def finish(self, *, failed: bool) -> None:
        """Let go of the machine at the end of a run that went to its end; `failed` is whether tests did not pass."""

"""Whole runs of the suite: how long the command took, and how much of that was nextest's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.commands import timed

ROOT = Path(__file__).resolve().parents[2]
CRATE = ROOT / "tests" / "crates" / "mydns"
CACHE = ROOT / ".bench"
"""What benchmarks install and make, to be used again by the next one. It can be deleted at any time."""

VMRUNNER = ROOT / ".venv" / "bin" / "vmrunner"
PYTHON = ROOT / ".venv" / "bin" / "python"
WHOLE_COMMAND = "whole command"
_LOGIN = "QEMU's start to SSH login"
LESS_NEXTEST = "whole command, less nextest's own time"


@dataclass(frozen=True)
class SuiteRun:
    """One run whose tests passed. Seconds; `phases` are parts of the command by name, in their order.

    `start` is how vmrunner says that the machine was started, `running_seconds` how long it took from QEMU's start until
    the guest ran.
    """

    seconds: float
    nextest_seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    start: str = "booted"
    running_seconds: float | None = None

    @property
    def less_nextest(self) -> float:
        """What the tool adds to what nextest needs for the tests."""
        return self.seconds - self.nextest_seconds


@dataclass(frozen=True)
class MachineShape:
    """The machine that the suite ran in, so that a comparison can have one like it; `memory` in bytes."""

    accelerator: str
    cpu_model: str
    cpus: int
    memory: int
    qemu: str

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> MachineShape:
        """The shape that a report of `vmrunner test` tells of."""
        machine = report["machine"]
        return cls(**{name: machine[name] for name in cls.__dataclass_fields__})

    @property
    def title(self) -> str:
        """In a few words."""
        return (
            f"{self.cpus} CPUs and {self.memory >> 20} MiB for the guest under {self.accelerator}"
            f" ({self.cpu_model}), QEMU {self.qemu}"
        )


def vmrunner_run(arguments: Sequence[str] = ()) -> tuple[SuiteRun, dict[str, Any]]:
    """One `vmrunner test` of the crate, with more `arguments`: the run, and vmrunner's report of it.

    Raises NotMeasured where the tests did not pass, for then the times mean nothing.
    """
    done = timed([VMRUNNER, "test", CRATE, "--format", "json", *arguments])
    report = json.loads(done.stdout)
    phases = {phase["name"]: phase["seconds"] for phase in report["phases"]}
    if report.get("boot_seconds"):
        phases[_LOGIN] = report["boot_seconds"]
    run = SuiteRun(
        done.seconds, report["nextest_seconds"], phases, report["start"], report.get("running_seconds")
    )
    return run, report


def series(runs: Sequence[SuiteRun]) -> dict[str, list[float]]:
    """What is measured -> its seconds, in the order of a run; a phase that a run did not have is not counted."""
    table: dict[str, list[float]] = {}
    for run in runs:
        for name, seconds in run.phases.items():
            table.setdefault(name, []).append(seconds)
    if running := [run.running_seconds for run in runs if run.running_seconds is not None]:
        table["QEMU's start to a running guest"] = running
    table["nextest's own time"] = [run.nextest_seconds for run in runs]
    table[WHOLE_COMMAND] = [run.seconds for run in runs]
    table[LESS_NEXTEST] = [run.less_nextest for run in runs]
    return table

"""The memory that restored machines take while nothing runs in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.commands import timed
from benchmarks.process_memory import ProcessMemory
from benchmarks.suite_runs import CRATE, PYTHON

PROGRAM = Path(__file__).with_name("idle_program.py")
COUNT = 3
RESTORED = "restored, nobody logged in"
LOGGED_IN = "after a login over SSH"


def measure() -> dict[str, list[ProcessMemory]]:
    """The memory of machines side by side, by what had happened in them. Raises NotMeasured where they do not start."""
    found = json.loads(timed([PYTHON, PROGRAM, CRATE, str(COUNT)]).stdout)
    names = {"restored": RESTORED, "logged_in": LOGGED_IN}
    return {names[key]: [ProcessMemory(**one) for one in machines] for key, machines in found.items()}


def rows(measured: Mapping[str, Sequence[ProcessMemory]]) -> list[tuple[str, str, str]]:
    """State, private and proportional memory of each machine, in MB."""
    return [
        (state, _listed([one.private for one in machines]), _listed([one.proportional for one in machines]))
        for state, machines in measured.items()
    ]


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size / 1e6:.0f}" for size in sizes)

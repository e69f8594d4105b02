"""What vmrunner sets out to reach, and whether what was measured reaches it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["ms", "s", "MB", "times"]

_DECIMALS: dict[Unit, int] = {"ms": 0, "s": 2, "MB": 1, "times": 1}


class Figure(enum.Enum):
    """A number that some goal is about."""

    RESTORE = "QEMU started to guest running, restored"
    RESTORED_TEST = "vmrunner test, restored, less nextest's own time"
    COLD_BOOT_RATIO = "cold boot of the same image / vmrunner test, restored; both less nextest's own time"
    LONG_LIVED_TEST = "vmrunner test in a long-lived VM, less nextest's own time"
    PRIVATE_MEMORY = "private memory of a further restored machine, idle"
    VIRTME_NG_RATIO = "virtme-ng / vmrunner test, restored; whole commands"


@dataclass(frozen=True)
class Goal:
    """A limit for a figure: at most `limit` (`bound` is "<="), at least (">="), or more than (">") it, in `unit`."""

    what: str
    figure: Figure
    bound: Literal["<=", ">=", ">"]
    limit: float
    unit: Unit

    @property
    def text(self) -> str:
        """The goal in words."""
        sign = {"<=": "≤", ">=": "≥", ">": ">"}[self.bound]
        return f"{sign} {self.limit:g} {self.unit}"

    def is_met(self, measured: float) -> bool:
        """Whether `measured`, in the goal's unit, is on the right side."""
        if self.bound == "<=":
            return measured <= self.limit
        return measured >= self.limit if self.bound == ">=" else measured > self.limit

    def verdict(self, measured: float | None) -> str:
        """`met`, or by how much it is missed, or that nothing was measured."""
        if measured is None:
            return "not measured"
        if self.is_met(measured):
            return "met"
        short = abs(measured - self.limit)
        return f"missed by {amount(short, self.unit)} ({short / self.limit:.0%})"


GOALS = (
    Goal("restore: QEMU started to guest running", Figure.RESTORE, "<=", 150, "ms"),
    Goal(
        "`vmrunner test` with a warm template, less nextest's own time", Figure.RESTORED_TEST, "<=", 2.5, "s"
    ),
    Goal("the same, the prize", Figure.RESTORED_TEST, "<=", 1.5, "s"),
    Goal("the same, against cold boot of the same image", Figure.COLD_BOOT_RATIO, ">=", 10, "times"),
    Goal("the same in a long-lived VM (`--vm`)", Figure.LONG_LIVED_TEST, "<=", 1.2, "s"),
    Goal("private memory of each further restored machine, idle", Figure.PRIVATE_MEMORY, "<=", 60, "MB"),
    Goal("the same command through virtme-ng, against a restored run", Figure.VIRTME_NG_RATIO, ">", 1, "times"),
)  # fmt: skip


def amount(value: float, unit: Unit) -> str:
    """`2.31 s`; as many decimals as the unit deserves, but never a 0 for what is not nothing."""
    decimals = _DECIMALS[unit]
    text = f"{value:.{decimals}f}"
    return f"{value:.1g} {unit}" if value and float(text) == 0 else f"{text} {unit}"


def goal_rows(figures: Mapping[Figure, float]) -> list[tuple[str, str, str, str]]:
    """What, goal, measured, verdict: one row for each goal. `figures` are in the goals' units."""
    rows = []
    for goal in GOALS:
        measured = figures.get(goal.figure)
        shown = "" if measured is None else amount(measured, goal.unit)
        rows.append((goal.what, goal.text, shown, goal.verdict(measured)))
    return rows

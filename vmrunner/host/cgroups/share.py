"""What a process gets of the processors, and what a way to arrange it must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

DEFAULT_WEIGHT: Final = 100
LOWEST_WEIGHT: Final = 1
HIGHEST_WEIGHT: Final = 10_000
PERIOD_US: Final = 100_000
"""Microseconds in which a quota is counted: the kernel's default, and systemd's."""


@dataclass(frozen=True)
class CpuShare:
    """A process's share of the processors, against whoever else wants them and at most."""

    weight: int | None = None
    """1 to 10000, systemd's `CPUWeight=`; everybody has 100. Counts only while the processors are contended."""
    quota: int | None = None
    """Percent of one processor, systemd's `CPUQuota=`: 150 is one and a half. None is without limit."""

    def __post_init__(self) -> None:
        if self.weight is not None and not LOWEST_WEIGHT <= self.weight <= HIGHEST_WEIGHT:
            raise ValueError(f"weight {self.weight} is not {LOWEST_WEIGHT} to {HIGHEST_WEIGHT}")
        if self.quota is not None and self.quota < 1:
            raise ValueError(f"quota {self.quota} is not at least 1 percent")

    @property
    def is_default(self) -> bool:
        """Whether it asks for nothing that a process without a group of its own does not have."""
        return self.weight in {None, DEFAULT_WEIGHT} and self.quota is None

    @property
    def weight_or_default(self) -> int:
        """The weight, 100 where none is asked for."""
        return DEFAULT_WEIGHT if self.weight is None else self.weight

    @property
    def quota_us(self) -> int | None:
        """The quota in microseconds of each period (`PERIOD_US`)."""
        return None if self.quota is None else self.quota * PERIOD_US // 100


def share_of(weight: int, quota_us: int | None, period_us: int) -> CpuShare:
    """The share that the kernel's numbers stand for, rounded to what a share can say."""
    return CpuShare(
        weight=min(max(weight, LOWEST_WEIGHT), HIGHEST_WEIGHT),
        quota=None if quota_us is None else max(1, round(quota_us * 100 / period_us)),
    )


class Way(Protocol):
    """One way to put a process into a group of its own; `group` is that group's name."""

    def present(self) -> bool:
        """Whether this computer works that way, whoever may use it."""

    def obstacle(self) -> str | None:
        """Why this user cannot go this way, as one sentence; None where it goes."""

    def holds(self, group: str, pid: int) -> bool:
        """Whether the process is in that group already, made this way."""

    def put(self, group: str, pid: int, share: CpuShare) -> CpuShare:
        """Put the process into the group, or change it, and return what the kernel says then."""

    def read(self, group: str, pid: int) -> CpuShare | None:
        """What the kernel says; None where the process is not in that group."""

    def drop(self, group: str) -> None:
        """Remove the group, which has no process any more, where there is one."""

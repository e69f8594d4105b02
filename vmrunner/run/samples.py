"""What a machine used while its tests ran, as the series in report.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FIRST_INTERVAL_SECONDS = 0.5
MOST_SAMPLES = 120
"""Beyond that every second one goes, and they are taken half as often: a report stays small, however long a run is."""


@dataclass(frozen=True)
class Sample:
    """What was used between two looks. CPU is in percent of one CPU, `host_percent` of all of this host's.

    `rss`, `pss` and `shared` are bytes of this host's memory: resident, the proportional part of that, and what others have
    too, such as the pages of a memory template; None where the process is another user's.

    What is the guest's own is None where it was not asked, as in the first seconds: its memory that is available and that
    is swapped out, in bytes, in how many percent of the time some task waited for memory, how many processes of the unit
    had been killed for memory, and what its network card received and sent.
    """

    seconds: float
    host_percent: float
    cpu_percent: float
    vcpu_percent: tuple[float, ...]
    rss: int
    pss: int | None
    shared: int | None
    read_bytes_per_second: float
    written_bytes_per_second: float
    requests_per_second: float
    guest_available: int | None = None
    guest_swapped: int | None = None
    guest_stalled_percent: float | None = None
    guest_kills: int | None = None
    guest_received_bytes_per_second: float | None = None
    guest_sent_bytes_per_second: float | None = None


@dataclass
class Series:
    """The samples of one run, and what they are to be judged by: CPUs, limits of the disk, quota (percent)."""

    host_cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    vcpus: int = 0
    disk_limits: Mapping[str, str] = field(default_factory=dict)
    cpu_quota: int | None = None
    interval: float = FIRST_INTERVAL_SECONDS
    samples: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Keep one more."""
        self.samples.append(sample)
        if len(self.samples) > MOST_SAMPLES:
            del self.samples[::2]
            self.interval *= 2

    def as_json(self) -> list[dict[str, Any]]:
        """The samples, rounded."""
        return [{name: _rounded(value) for name, value in asdict(sample).items()} for sample in self.samples]


def _rounded(value: Any) -> Any:  # noqa: ANN401 -- a number, or several
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, 1) if isinstance(value, float) else value

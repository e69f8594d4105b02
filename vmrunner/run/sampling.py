"""What a machine used while its tests ran, look by look: the series in report.json, and the bottleneck if there was one.

A look costs a few reads of /proc and one question to QEMU; the guest is not asked, for that would take of its time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmrunner.config.disk_values import number_of
from vmrunner.host.deadline import Deadline
from vmrunner.machine.monitor import CommandRefused, MonitorLost
from vmrunner.machine.placement import vcpu_threads
from vmrunner.machine.tuning.disk import read_limits
from vmrunner.machine.usage import cpu_seconds, disk_counters, resident_bytes

if TYPE_CHECKING:
    from vmrunner.machine.machine import Machine

log = logging.getLogger(__name__)

FIRST_INTERVAL_SECONDS = 0.5
MOST_SAMPLES = 120
"""Beyond that every second one goes, and they are taken half as often: a report stays small, however long a run is."""

_QMP_SECONDS = 2.0
_STAT = Path("/proc/stat")
_PROC = Path("/proc")
_BUSY = 95.0
_AT_LIMIT = 0.9
_FEWEST = 3


@dataclass(frozen=True)
class Sample:
    """What was used between two looks. CPU is in percent of one CPU, `host_percent` of all of this host's."""

    seconds: float
    host_percent: float
    cpu_percent: float
    vcpu_percent: tuple[float, ...]
    rss: int
    read_bytes_per_second: float
    written_bytes_per_second: float
    requests_per_second: float


@dataclass(frozen=True)
class Look:
    """Counters at one moment, by the monotonic clock; CPU times in seconds."""

    at: float
    host_busy: float
    host_total: float
    cpu: float
    vcpus: tuple[float, ...]
    rss: int
    disk: Mapping[str, int]


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

    def as_json(self) -> dict[str, Any]:
        """What report.json holds."""
        rounded = [
            {name: _rounded(value) for name, value in asdict(sample).items()} for sample in self.samples
        ]
        return {"interval_seconds": self.interval, "bottleneck": self.bottleneck(), "samples": rounded}

    def bottleneck(self) -> str | None:
        """What held the run back, in one sentence; None where nothing did, or where the run was too short to tell."""
        if len(self.samples) < _FEWEST:
            return None
        for judge in (self._disk, self._quota, self._host, self._guest):
            if sentence := judge():
                return sentence
        return None

    def _disk(self) -> str | None:
        for name, limit in self.disk_limits.items():
            share = self._share(partial(_reaches, name=name, limit=number_of(limit)))
            if share >= 0.5:
                return f"the disk was at its limit ({name}={limit}) {share:.0%} of the time"
        return None

    def _quota(self) -> str | None:
        quota = self.cpu_quota
        if quota is None or self._share(lambda one: one.cpu_percent >= _AT_LIMIT * quota) < 0.5:
            return None
        return f"the machine was held to its CPU quota of {quota}%"

    def _host(self) -> str | None:
        share = self._share(lambda one: one.host_percent >= _BUSY)
        if share < 0.5:
            return None
        used = self._mean(lambda one: one.cpu_percent)
        return (
            f"this host's CPUs were saturated {share:.0%} of the time; the machine had {used:.0f} % of"
            f" {100 * self.host_cpus} %"
        )

    def _guest(self) -> str | None:
        share = self._share(lambda one: bool(one.vcpu_percent) and min(one.vcpu_percent) >= _BUSY)
        if share < 0.5 or self.vcpus >= self.host_cpus:
            return None
        return f"all {self.vcpus} CPUs of the guest were busy {share:.0%} of the time; `--cpus` gives it more"

    def _share(self, holds: Callable[[Sample], bool]) -> float:
        return sum(map(holds, self.samples)) / len(self.samples)

    def _mean(self, of: Callable[[Sample], float]) -> float:
        return sum(map(of, self.samples)) / len(self.samples)


class Sampler:
    """Looks at a machine from time to time; called often, it looks seldom. What fails ends the looking, not the run."""

    def __init__(self, machine: Machine, series: Series) -> None:
        self._machine = machine
        self._series = series
        self._began = time.monotonic()
        self._next = 0.0
        self._last: Look | None = None
        self._threads: tuple[int, ...] | None = None

    def look(self) -> None:
        """Take a sample where it is time for one."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._series.interval
        try:
            if self._threads is None:
                self._begin()
            look = self._look()
        except (CommandRefused, MonitorLost, OSError, KeyError, ValueError) as error:
            log.debug("no more samples: %s", error)
            self._next = float("inf")
            return
        if self._last:
            self._series.add(_between(self._last, look, began=self._began))
        self._last = look

    def _begin(self) -> None:
        deadline = Deadline.after(_QMP_SECONDS)
        threads = vcpu_threads(self._machine.monitor)
        self._threads = tuple(threads[vcpu] for vcpu in sorted(threads))
        self._series.vcpus = self._machine.plan.cpus
        self._series.disk_limits = read_limits(self._machine, deadline)
        self._series.cpu_quota = self._machine.plan.placement.quota

    def _look(self) -> Look:
        pid = self._machine.pid
        fields = [int(number) for number in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
        # proc_stat(5): the fourth and fifth are idle and iowait.
        idle = fields[3] + fields[4]
        process = _PROC / str(pid)
        return Look(
            time.monotonic(), sum(fields) - idle, sum(fields), cpu_seconds(process / "stat"),
            tuple(cpu_seconds(process / "task" / str(tid) / "stat") for tid in self._threads or ()),
            resident_bytes(pid), disk_counters(self._machine, Deadline.after(_QMP_SECONDS)) or {},
        )  # fmt: skip


def _between(first: Look, second: Look, *, began: float) -> Sample:
    seconds = max(second.at - first.at, 1e-3)
    total = max(second.host_total - first.host_total, 1)

    def rate(*names: str) -> float:
        return sum(second.disk.get(name, 0) - first.disk.get(name, 0) for name in names) / seconds

    return Sample(
        seconds=second.at - began,
        host_percent=100 * (second.host_busy - first.host_busy) / total,
        cpu_percent=100 * (second.cpu - first.cpu) / seconds,
        vcpu_percent=tuple(
            100 * (new - old) / seconds for old, new in zip(first.vcpus, second.vcpus, strict=True)
        ),
        rss=second.rss,
        read_bytes_per_second=rate("rd_bytes"),
        written_bytes_per_second=rate("wr_bytes"),
        requests_per_second=rate("rd_operations", "wr_operations"),
    )


def _reaches(sample: Sample, name: str, limit: int) -> bool:
    if name.endswith("burst") or name == "burst-seconds":
        return False
    read, written = sample.read_bytes_per_second, sample.written_bytes_per_second
    used = {
        "bps": read + written, "bps-read": read, "bps-write": written, "iops": sample.requests_per_second,
    }.get(name, 0.0)  # fmt: skip
    return used >= _AT_LIMIT * limit


def _rounded(value: Any) -> Any:  # noqa: ANN401 -- a number, or several
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, 1) if isinstance(value, float) else value

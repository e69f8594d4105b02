"""Look at a machine while its tests run, from time to time.

A look costs a few reads of /proc and one question to QEMU. What part of the memory is shared costs the kernel 10 ms for
each GiB (measured), so it is not asked every time where there is much. The guest is asked from the third second on, so
that a short suite pays nothing for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.errors import VmrunnerError
from vmrunner.guest.meter import GuestUse, Meter
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.host.deadline import Deadline
from vmrunner.machine.monitor import CommandRefused, MonitorLost
from vmrunner.machine.placement import vcpu_threads
from vmrunner.machine.tuning.disk import read_limits
from vmrunner.machine.usage import HostMemory, cpu_seconds, disk_counters, host_memory, resident_bytes
from vmrunner.run.samples import Sample, Series

if TYPE_CHECKING:
    from vmrunner.machine.machine import Machine

log = logging.getLogger(__name__)

ASK_GUEST_AFTER_SECONDS = 2.0

_QMP_SECONDS = 2.0
_METER_SECONDS = 5.0
# At most a hundredth of the time goes into asking how the memory is shared.
_MEMORY_PAUSE = 100
_STAT = Path("/proc/stat")
_PROC = Path("/proc")


@dataclass(frozen=True)
class GuestRates:
    """What the guest's counters came to between two of its answers; None where one of them does not say."""

    stalled_percent: float | None = None
    received: float | None = None
    sent: float | None = None

    @classmethod
    def between(cls, first: GuestUse | None, second: GuestUse) -> GuestRates:
        """Those of the time between the two, by the guest's clock."""
        if first is None or second.uptime <= first.uptime:
            return cls()
        seconds = second.uptime - first.uptime

        def rate(before: float | None, after: float | None) -> float | None:
            return None if before is None or after is None else max(0.0, after - before) / seconds

        stalled = rate(first.stalled, second.stalled)
        return cls(
            None if stalled is None else min(100.0, 100 * stalled),
            rate(first.received, second.received),
            rate(first.sent, second.sent),
        )


@dataclass(frozen=True)
class Look:
    """Counters at one moment, by the monotonic clock; CPU times in seconds."""

    at: float
    host_busy: float
    host_total: float
    cpu: float
    vcpus: tuple[float, ...]
    rss: int
    memory: HostMemory
    disk: Mapping[str, int]
    guest: GuestUse | None = None
    guest_rates: GuestRates = GuestRates()


class Sampler:
    """Called often, it looks seldom. What fails ends the looking, not the run."""

    def __init__(self, machine: Machine, series: Series) -> None:
        self._machine = machine
        self._series = series
        self._began = time.monotonic()
        self._next = 0.0
        self._last: Look | None = None
        self._threads: tuple[int, ...] | None = None
        self._meter: Meter | None = None
        self._asks_guest = True
        self._guest: GuestUse | None = None
        self._guest_rates = GuestRates()
        self._memory = HostMemory(None, None, None, None)
        self._next_memory = 0.0

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

    def close(self) -> None:
        """Look no more; the guest is not asked any longer."""
        self._next = float("inf")
        if self._meter:
            self._meter.close()

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
        self._ask_guest()
        return Look(
            time.monotonic(), sum(fields) - idle, sum(fields), cpu_seconds(process / "stat"),
            tuple(cpu_seconds(process / "task" / str(tid) / "stat") for tid in self._threads or ()),
            resident_bytes(pid), self._host_memory(pid),
            disk_counters(self._machine, Deadline.after(_QMP_SECONDS)) or {},
            self._guest, self._guest_rates,
        )  # fmt: skip

    def _host_memory(self, pid: int) -> HostMemory:
        began = time.monotonic()
        if began >= self._next_memory:
            self._memory = host_memory(pid)
            self._next_memory = began + _MEMORY_PAUSE * (time.monotonic() - began)
        return self._memory

    def _ask_guest(self) -> None:
        """Note what the guest says, which holds until it says more; one that does not answer is not asked again."""
        if not self._asks_guest or time.monotonic() - self._began < ASK_GUEST_AFTER_SECONDS:
            return
        try:
            if self._meter is None:
                self._meter = Meter(self._machine.guest, deadline=Deadline.after(_METER_SECONDS))
            said = self._meter.latest()
        except (ConnectionLost, VmrunnerError) as error:
            log.debug("the guest is not asked any more: %s", error)
            self._asks_guest, self._guest, self._guest_rates = False, None, GuestRates()
            return
        if said:
            self._guest_rates = GuestRates.between(self._guest, said)
            self._guest = said


def _between(first: Look, second: Look, *, began: float) -> Sample:
    seconds = max(second.at - first.at, 1e-3)
    total = max(second.host_total - first.host_total, 1)

    def rate(*names: str) -> float:
        return sum(second.disk.get(name, 0) - first.disk.get(name, 0) for name in names) / seconds

    said = second.guest
    return Sample(
        seconds=second.at - began,
        host_percent=100 * (second.host_busy - first.host_busy) / total,
        cpu_percent=100 * (second.cpu - first.cpu) / seconds,
        vcpu_percent=tuple(
            100 * (new - old) / seconds for old, new in zip(first.vcpus, second.vcpus, strict=True)
        ),
        rss=second.rss,
        pss=second.memory.pss,
        shared=second.memory.shared,
        read_bytes_per_second=rate("rd_bytes"),
        written_bytes_per_second=rate("wr_bytes"),
        requests_per_second=rate("rd_operations", "wr_operations"),
        guest_available=said.available if said else None,
        guest_swapped=said.swapped if said else None,
        guest_stalled_percent=second.guest_rates.stalled_percent,
        guest_kills=said.kills if said else None,
        guest_received_bytes_per_second=second.guest_rates.received,
        guest_sent_bytes_per_second=second.guest_rates.sent,
    )

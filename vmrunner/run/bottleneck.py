"""What held a run back, told from its samples in one sentence: so that a slow suite is not taken for a starved one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from vmrunner.config.disk_values import number_of
from vmrunner.config.units import Size
from vmrunner.run.samples import Sample, Series

_BUSY = 95.0
_AT_LIMIT = 0.9
_FEWEST = 3
# Tasks of a guest that is short of memory wait for it 10 to 60 % of the time (measured); of one that has enough, never.
_STALLED = 10.0
_STALLED_SHARE = 0.3
# What a kernel puts into swap for being unused holds nobody back.
_SWAPPED = 16 << 20


def bottleneck_of(series: Series) -> str | None:
    """The sentence; None where nothing held the run back, or where it was too short to tell."""
    if len(series.samples) < _FEWEST:
        return None
    for judge in (_kills, _memory, _disk, _quota, _host, _guest):
        if sentence := judge(series):
            return sentence
    return None


def _kills(series: Series) -> str | None:
    kills = max((one.guest_kills or 0 for one in series.samples), default=0)
    if not kills:
        return None
    return f"the guest ran out of memory and killed {kills} of the tests' processes; `--memory` gives it more"


def _memory(series: Series) -> str | None:
    asked = [one for one in series.samples if one.guest_stalled_percent is not None]
    stalled = [one for one in asked if (one.guest_stalled_percent or 0) >= _STALLED]
    if len(stalled) < _FEWEST or len(stalled) < _STALLED_SHARE * len(asked):
        return None
    share, swapped = len(stalled) / len(asked), max(one.guest_swapped or 0 for one in asked)
    if swapped >= _SWAPPED:
        return (
            f"the guest was swapping {share:.0%} of the time (up to {Size(swapped).for_people()} swapped out); `--memory` gives"
            " it more"
        )
    return f"the guest was short of memory {share:.0%} of the time; `--memory` gives it more"


def _disk(series: Series) -> str | None:
    for name, limit in series.disk_limits.items():
        used = [_used(sample, name) for sample in series.samples]
        share = sum(mean >= _AT_LIMIT * number_of(limit) for mean in _smoothed(used)) / len(used)
        if share >= 0.5:
            return f"the disk was at its limit ({name}={limit}) {share:.0%} of the time"
    return None


def _quota(series: Series) -> str | None:
    quota = series.cpu_quota
    if quota is None or _share(series, lambda one: one.cpu_percent >= _AT_LIMIT * quota) < 0.5:
        return None
    return f"the machine was held to its CPU quota of {quota}%"


def _host(series: Series) -> str | None:
    share = _share(series, lambda one: one.host_percent >= _BUSY)
    if share < 0.5:
        return None
    used = sum(one.cpu_percent for one in series.samples) / len(series.samples)
    return (
        f"this host's CPUs were saturated {share:.0%} of the time; the machine had {used:.0f} % of"
        f" {100 * series.host_cpus} %"
    )


def _guest(series: Series) -> str | None:
    share = _share(series, lambda one: bool(one.vcpu_percent) and min(one.vcpu_percent) >= _BUSY)
    if share < 0.5 or series.vcpus >= series.host_cpus:
        return None
    return f"all {series.vcpus} CPUs of the guest were busy {share:.0%} of the time; `--cpus` gives it more"


def _share(series: Series, holds: Callable[[Sample], bool]) -> float:
    return sum(map(holds, series.samples)) / len(series.samples)


def _used(sample: Sample, name: str) -> float:
    """What counts for the limit of that name; 0 for those that are not looked at, bursts among them."""
    read, written = sample.read_bytes_per_second, sample.written_bytes_per_second
    return {
        "bps": read + written, "bps-read": read, "bps-write": written, "iops": sample.requests_per_second,
    }.get(name, 0.0)  # fmt: skip


def _smoothed(values: Sequence[float]) -> list[float]:
    """Each with its neighbours: of large requests two may end in one look, and none in the next."""
    return [fmean(values[max(0, at - 1) : at + 3]) for at in range(len(values))]

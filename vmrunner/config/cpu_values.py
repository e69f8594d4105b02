"""What CPU settings are written as: lists of CPUs, topologies, quotas, feature flags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_TOPOLOGY = re.compile(r"([1-9]\d{0,2})x([1-9]\d{0,2})x([1-9]\d{0,2})")
_QUOTA = re.compile(r"([1-9]\d{0,5})%?")
_FEATURE = re.compile(r"[+-]?[A-Za-z0-9][A-Za-z0-9._-]*(?:=[A-Za-z0-9._-]+)?")
_MOST_CPUS = 4096


@dataclass(frozen=True)
class Topology:
    """How vCPUs are laid out, written `1x2x2`: sockets, cores of each socket, threads of each core."""

    sockets: int
    cores: int
    threads: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `SOCKETSxCORESxTHREADS`; raises ValueError with an example."""
        match = _TOPOLOGY.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(f"not a topology: {text!r} (want SOCKETSxCORESxTHREADS, for example 1x2x2)")
        return cls(*map(int, match.groups()))

    @property
    def cpus(self) -> int:
        """All its vCPUs."""
        return self.sockets * self.cores * self.threads

    def __str__(self) -> str:
        return f"{self.sockets}x{self.cores}x{self.threads}"


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The CPUs of a list as Linux writes it, such as `0-3,6`, in order (cpuset(7)). Raises ValueError with an example."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= _MOST_CPUS:
            raise ValueError(f"not a list of CPUs: {text!r} (want for example 0-3,6)")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The shortest spelling that `parse_cpu_list` reads back: `0-3,6`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def cpu_list(value: str) -> str:
    """A list of CPUs in its shortest spelling."""
    return format_cpu_list(parse_cpu_list(value))


def topology(value: str) -> str:
    """A topology."""
    return str(Topology.parse(value))


def quota(value: str) -> str:
    """A share of CPU time as systemd's CPUQuota= has it: percent of one CPU, such as `150%`."""
    match = _QUOTA.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"not a CPU quota: {value!r} (want percent of one CPU, for example 50% or 200%)")
    return f"{match[1]}%"


def percent_of(text: str) -> int:
    """The number of a checked `quota`."""
    return int(text.removesuffix("%"))


def feature(value: str) -> str:
    """A property of the CPU model as QEMU's `-cpu` takes it: `avx2=off`, `+pcid`, `-pcid`."""
    if not _FEATURE.fullmatch(value):
        raise ValueError(f"not a CPU feature: {value!r} (want for example avx2=off or +pcid)")
    return value


def pins_of(pins: Mapping[str, str]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Which host CPUs each vCPU may run on, by vCPU, from checked `pins`; a key may be a range of vCPUs."""
    found = {vcpu: parse_cpu_list(cpus) for vcpus, cpus in pins.items() for vcpu in parse_cpu_list(vcpus)}
    return tuple(sorted(found.items()))


def check_pins(pins: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse a vCPU that is named twice."""
    seen: set[int] = set()
    for vcpus in pins:
        twice = seen.intersection(parse_cpu_list(vcpus))
        if twice:
            raise ValueError(f"vCPU {min(twice)} is pinned twice (name each once)")
        seen.update(parse_cpu_list(vcpus))
    return pins

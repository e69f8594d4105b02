"""What a machine uses: this host's CPU time and memory, the guest's memory, its disk and its network; counters, no rates.

Host: proc_pid_stat(5), proc_pid_smaps(5). Disk and balloon: QEMU. Network: the guest's own counters, for QEMU's user
network has none.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmrunner.host.deadline import Deadline
from vmrunner.machine.hardware.devices import BALLOON_ID
from vmrunner.machine.hardware.disks import DISK_ID
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import CommandRefused
from vmrunner.machine.placement import vcpu_threads
from vmrunner.machine.tuning.memory import actual

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_BALLOON = f"/machine/peripheral/{BALLOON_ID}"
_STATISTICS_SECONDS = 5.0
_POLL_SECONDS = 0.2
# What QEMU says for a number that the guest does not tell.
_UNKNOWN = (1 << 64) - 1
_NETWORK = "read -r rx </sys/class/net/eth0/statistics/rx_bytes; read -r tx </sys/class/net/eth0/statistics/tx_bytes; echo $rx $tx"


@dataclass(frozen=True)
class HostMemory:
    """Bytes of this host's memory: resident, the proportional part of it, and what no other process has too.

    `shared` are resident pages that others have as well, such as those of a memory template. None where the process is
    another user's.
    """

    rss: int | None
    pss: int | None
    private: int | None
    shared: int | None


@dataclass(frozen=True)
class Usage:
    """One look at a machine. CPU times are in seconds, sizes in bytes; None is not known.

    `at` is by the monotonic clock. `guest_memory` are the balloon's statistics by QEMU's names, without `stat-`.
    """

    at: float
    cpu_seconds: float
    vcpu_seconds: dict[int, float]
    memory: HostMemory
    balloon: int | None = None
    guest_memory: dict[str, int] | None = None
    disk: dict[str, int] | None = None
    network: dict[str, int] | None = None


def read_host_usage(pid: int, threads: dict[int, int]) -> Usage:
    """What this host knows of a process; `threads` are those of the vCPUs. Raises ProcessLookupError where it is gone."""
    try:
        whole = cpu_seconds(_PROC / str(pid) / "stat")
        vcpus = {
            vcpu: cpu_seconds(_PROC / str(pid) / "task" / str(tid) / "stat") for vcpu, tid in threads.items()
        }
    except FileNotFoundError as error:
        raise ProcessLookupError(f"there is no process {pid}") from error
    return Usage(time.monotonic(), whole, vcpus, host_memory(pid))


def read_usage(machine: Machine, *, in_guest: bool, deadline: Deadline) -> Usage:
    """All of it; `in_guest`: the machine's guest is logged in to, and asked too. Raises MonitorLost, ConnectionLost."""
    host = read_host_usage(machine.pid, vcpu_threads(machine.monitor))
    balloon, statistics = _balloon(machine, deadline) if machine.plan.balloon else (None, None)
    return Usage(
        host.at, host.cpu_seconds, host.vcpu_seconds, host.memory, balloon, statistics,
        disk_counters(machine, deadline), _network(machine, deadline) if in_guest else None,
    )  # fmt: skip


def cpu_seconds(stat: Path) -> float:
    """The CPU time of a process, or of one thread, from its `stat` in /proc. Raises FileNotFoundError."""
    # The name of the program, in brackets, may hold anything.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """A process's resident memory, cheaply (proc_pid_statm(5)). Raises FileNotFoundError."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def host_memory(pid: int) -> HostMemory:
    """What a process has of this host's memory; the kernel looks at all of its pages for that."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return HostMemory(None, None, None, None)
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}

    def both(kind: str) -> int:
        return found.get(f"{kind}_Clean", 0) + found.get(f"{kind}_Dirty", 0)

    return HostMemory(found.get("Rss"), found.get("Pss"), both("Private"), both("Shared"))


def _balloon(machine: Machine, deadline: Deadline) -> tuple[int | None, dict[str, int] | None]:
    """The bytes that the guest has, and its statistics, once it has sent some."""

    def get(name: str) -> Any:  # noqa: ANN401 -- any property
        return machine.monitor.execute("qom-get", {"path": _BALLOON, "property": name}, deadline=deadline)

    try:
        has = actual(machine, deadline)
        if not get("guest-stats-polling-interval"):
            every = {"path": _BALLOON, "property": "guest-stats-polling-interval", "value": 1}
            machine.monitor.execute("qom-set", every, deadline=deadline)
        patience = deadline.within(_STATISTICS_SECONDS)
        while not (answer := get("guest-stats"))["last-update"] and patience.pause(_POLL_SECONDS):
            pass
    except CommandRefused:  # the guest has no driver for it, or not yet
        return None, None
    known = {
        name.removeprefix("stat-"): int(value)
        for name, value in answer["stats"].items()
        if 0 <= int(value) < _UNKNOWN
    }
    return has, known if answer["last-update"] else None


def disk_counters(machine: Machine, deadline: Deadline) -> dict[str, int] | None:
    """Bytes and requests of the root disk since QEMU started, by QEMU's names; None where there is no such disk."""
    for device in machine.monitor.execute("query-blockstats", deadline=deadline):
        if DISK_ID in str(device.get("qdev", "")):
            stats = device["stats"]
            names = ("rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations")
            return {name: int(stats[name]) for name in names}
    return None


def _network(machine: Machine, deadline: Deadline) -> dict[str, int] | None:
    words = machine.guest.execute(["/bin/sh", "-c", _NETWORK], deadline=deadline).stdout.split()
    if len(words) != 2 or not all(word.isdecimal() and len(word) < 20 for word in words):
        return None
    return {"rx_bytes": int(words[0]), "tx_bytes": int(words[1])}

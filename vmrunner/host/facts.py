"""What this computer has: processors, memory, disk space, distribution."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from vmrunner.host.paths import cache_dir, state_dir

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class HostFacts:
    """One look at this computer; sizes are bytes."""

    cpus: int
    """Processors this process may use (its affinity mask), not all there are."""
    memory_total: int
    """Main memory, or the limit of this process's cgroup where that is lower."""
    memory_available: int
    """What can be used without swapping, below the cgroup's limit too."""
    cache_free: int
    """Free disk space where images and templates are kept."""
    state_free: int
    """Free disk space where runs and long-lived machines are kept."""
    distribution: str
    """As it calls itself: `Debian GNU/Linux 12 (bookworm)`."""


@dataclass(frozen=True)
class CgroupMemory:
    """The tightest memory limit on this process, in bytes, and how much of it is still unused."""

    limit: int
    unused: int


def read_facts() -> HostFacts:
    """Look at this computer now; raises OSError where vmrunner's directories cannot be made."""
    total, available = _memory()
    cgroup = cgroup_memory()
    return HostFacts(
        cpus=len(os.sched_getaffinity(0)),
        memory_total=min(total, cgroup.limit) if cgroup else total,
        memory_available=min(available, cgroup.unused) if cgroup else available,
        cache_free=shutil.disk_usage(cache_dir()).free,
        state_free=shutil.disk_usage(state_dir()).free,
        distribution=_distribution(),
    )


def cgroup_memory(own: Path = OWN_CGROUPS, root: Path = CGROUP_ROOT) -> CgroupMemory | None:
    """The memory limit that cgroup v2 puts on this process or on a group round it; None without one.

    Containers and CI jobs set it; `/proc/meminfo` does not show it. Page cache that the kernel can drop
    (`inactive_file`) counts as unused.
    """
    group = _unified_group(own)
    if group is None:
        return None
    found = []
    for directory in (group, *group.parents):
        limit = _read_number(root / directory / "memory.max")
        if limit is not None:
            used = _read_number(root / directory / "memory.current") or 0
            droppable = _inactive_file(root / directory / "memory.stat")
            found.append(CgroupMemory(limit, max(0, limit - used + droppable)))
    if not found:
        return None
    return CgroupMemory(min(one.limit for one in found), min(one.unused for one in found))


def _memory() -> tuple[int, int]:
    """Total and available memory (proc_meminfo(5)). Not by psutil: to import it takes 40 ms of every run."""
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, available


def _unified_group(own: Path) -> Path | None:
    """This process's group in the cgroup v2 tree, relative to its root (cgroups(7): the line `0::PATH`)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            return Path(line.removeprefix("0::").lstrip("/"))
    return None


def _read_number(path: Path) -> int | None:
    """The number in a cgroup file; None where the file is missing or says `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"

"""What this computer lets a machine have besides memory: processors, huge pages, scheduling, io_uring."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmrunner.host import cpu_share, scheduling

HUGE_PAGE_BYTES = {"2M": 2 << 20, "1G": 1 << 30}

_HUGE_PAGES = Path("/sys/kernel/mm/hugepages")
_IO_URING_SINCE = (5, 1)
# Linux 6.6: 2 is off for everybody, 1 for all but a group (kernel documentation, sysctl/kernel.rst).
_IO_URING_DISABLED = Path("/proc/sys/kernel/io_uring_disabled")


@dataclass(frozen=True)
class HostLimits:
    """One look at this computer. What costs to find out is asked for when it is wanted."""

    cpus: tuple[int, ...]
    """The processors this process may use (its affinity mask)."""
    nice_floor: int
    """The lowest nice value that this user may give."""
    free_huge_pages: Callable[[str], int]
    """How many huge pages of a size (`2M`, `1G`) are reserved and not in use."""
    cpu_share_obstacle: Callable[[], str | None]
    """Why CPU weight and quota cannot be set here; None where they can."""
    io_uring_obstacle: Callable[[], str | None]
    """Why io_uring cannot be used here; None where it can."""


def read_limits() -> HostLimits:
    """Look at this computer now."""
    return HostLimits(
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        nice_floor=scheduling.nice_floor(),
        free_huge_pages=free_huge_pages,
        cpu_share_obstacle=cpu_share.obstacle,
        io_uring_obstacle=io_uring_obstacle,
    )


def free_huge_pages(size: str, root: Path = _HUGE_PAGES) -> int:
    """How many huge pages of `size` are reserved and neither used nor promised to somebody; 0 where there are none."""
    directory = root / f"hugepages-{HUGE_PAGE_BYTES[size] >> 10}kB"
    try:
        free, promised = (
            int((directory / name).read_text()) for name in ("free_hugepages", "resv_hugepages")
        )
    except FileNotFoundError:
        return 0
    return free - promised


def io_uring_obstacle(release: str | None = None, disabled: Path = _IO_URING_DISABLED) -> str | None:
    """Why io_uring cannot be used, with the version from which on it can; None where it can."""
    release = os.uname().release if release is None else release
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < _IO_URING_SINCE:
        return f"io_uring works from Linux 5.1 on, and this is {release}"
    if disabled.exists() and disabled.read_text().strip() != "0":
        return f"io_uring is off on this host ({disabled} is {disabled.read_text().strip()})"
    return None

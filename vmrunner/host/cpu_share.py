"""How much of the processors one process gets, set and changed while it runs: a cgroup of its own.

There are three ways, tried in this order:

1. the `cpu` controller of cgroup v1, where it is mounted (then cgroup v2 cannot have it);
2. a scope of systemd where systemd runs the computer. It comes before 3, for root too: the tree is systemd's then, and
   only it can take a user's process out of the group of their login;
3. cgroup v2 written directly: containers, and computers with another init system.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vmrunner.errors import HostError
from vmrunner.host.cgroups.hierarchy import PROC
from vmrunner.host.cgroups.share import CpuShare, Way
from vmrunner.host.cgroups.systemd_scope import SystemdScope
from vmrunner.host.cgroups.v1 import CgroupV1
from vmrunner.host.cgroups.v2 import CgroupV2

__all__ = ["CpuShare", "caution", "drop_group", "obstacle", "read_cpu_share", "set_cpu_share", "ways"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_NO_CONTROLLER = (
    "this computer has no cpu controller mounted: mount cgroup v2 (`mount -t cgroup2 none /sys/fs/cgroup`), which has it "
    "from Linux 4.15 on, or let systemd 226 or later do it at boot"
)


def ways(proc: Path = PROC) -> list[Way]:
    """The three ways as this computer has them, the first to be tried first."""
    return [CgroupV1.on_host(proc), SystemdScope.on_host(proc), CgroupV2.on_host(proc)]


def obstacle(among: Sequence[Way] | None = None) -> str | None:
    """Why this user cannot set weight and quota here, what to do, and from which version on; None where it goes."""
    among = ways() if among is None else among
    reasons = [way.obstacle() for way in among]
    if None in reasons:
        return None
    return next((reason for way, reason in zip(among, reasons, strict=True) if way.present()), _NO_CONTROLLER)


def caution(among: Sequence[Way] | None = None) -> str | None:
    """What having a share costs here, to be told when it is set on a long-lived process; None for nothing."""
    among = ways() if among is None else among
    way = _usable(among)
    if isinstance(way, SystemdScope) and way.ends_with_login():
        return "a process with a CPU weight or quota ends with this user's last login: `loginctl enable-linger` keeps it"
    return None


def set_cpu_share(name: str, pid: int, share: CpuShare, among: Sequence[Way] | None = None) -> CpuShare:
    """Put a process, all its threads, into a group called `name`, or change the group it is in.

    What `share` leaves open goes back to the default (weight 100, no quota); a process that has no group gets none
    for a default share. Returns what the kernel says then. Raises HostError where it is refused,
    ProcessLookupError where the process has ended.
    """
    _check(name)
    among = ways() if among is None else among
    way = next((way for way in among if way.holds(name, pid)), None)
    if way is None:
        if share.is_default:
            return CpuShare()
        way = _usable(among)
    if way is None:
        raise HostError("CPU weight and quota cannot be set on this computer", hint=obstacle(among))
    return way.put(name, pid, share)


def read_cpu_share(name: str, pid: int, among: Sequence[Way] | None = None) -> CpuShare:
    """What the kernel says of a process's group `name`; neither weight nor quota where it is in no such group."""
    _check(name)
    try:
        found = [way.read(name, pid) for way in (ways() if among is None else among)]
    except ProcessLookupError:
        return CpuShare()
    return next((share for share in found if share is not None), CpuShare())


def drop_group(name: str, among: Sequence[Way] | None = None) -> None:
    """Remove the group of a process that has ended, if there is one; raises HostError where a process is in it."""
    _check(name)
    for way in ways() if among is None else among:
        way.drop(name)


def _usable(among: Sequence[Way]) -> Way | None:
    return next((way for way in among if way.obstacle() is None), None)


def _check(name: str) -> None:
    """A name becomes a directory's and a unit's, so it can be neither a path nor an option."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a name for a group")

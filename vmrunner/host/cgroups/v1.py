"""CPU shares by the `cpu` controller of cgroup v1 (Documentation/scheduler/sched-bwc.rst and sched-design-CFS.rst)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import HostError
from vmrunner.host.cgroups.group_directory import (
    can_take_groups,
    make_group,
    move_process,
    read_text,
    remove_groups,
    write_setting,
)
from vmrunner.host.cgroups.hierarchy import PROC, Hierarchy, find_v1
from vmrunner.host.cgroups.share import DEFAULT_WEIGHT, PERIOD_US, CpuShare, share_of

CONTROLLER = "cpu"
_DEFAULT_SHARES = 1024
_LOWEST_SHARES, _HIGHEST_SHARES = 2, 262_144
_UNLIMITED = -1


@dataclass(frozen=True)
class CgroupV1:
    """Groups written directly into the tree of the `cpu` controller, below the group the process is in."""

    tree: Hierarchy | None

    @classmethod
    def on_host(cls, proc: Path = PROC) -> CgroupV1:
        """As this computer has it mounted."""
        return cls(find_v1(CONTROLLER, proc))

    def present(self) -> bool:
        """See `Way`."""
        return self.tree is not None

    def obstacle(self) -> str | None:
        """See `Way`."""
        own = self.tree.group_of() if self.tree else None
        if own is None:
            return "the cpu controller of cgroup v1 is not mounted where this process could use it"
        if not can_take_groups(own):
            return (
                f"the cpu controller is in cgroup v1 here and {own} belongs to root: run vmrunner as root, or start this "
                "computer with cgroup v2 (`systemd.unified_cgroup_hierarchy=1` from systemd 226 on, with Linux 4.15)"
            )
        return None

    def holds(self, group: str, pid: int) -> bool:
        """See `Way`."""
        return self.tree is not None and self.tree.named(group, pid) is not None

    def put(self, group: str, pid: int, share: CpuShare) -> CpuShare:
        """See `Way`."""
        assert self.tree is not None
        directory = self.tree.named(group, pid)
        if directory is not None:
            _write(directory, share)
            return _read(directory)
        parent = self.tree.group_of(pid)
        if parent is None:
            raise HostError(
                f"the cgroup of process {pid} is not visible below {self.tree.mount}",
                hint="run vmrunner in the container that the process was started in",
            )
        directory = parent / group
        make_group(directory)
        _write(directory, share)
        move_process(directory, pid)
        return _read(directory)

    def read(self, group: str, pid: int) -> CpuShare | None:
        """See `Way`."""
        directory = self.tree.named(group, pid) if self.tree else None
        return _read(directory) if directory else None

    def drop(self, group: str) -> None:
        """See `Way`."""
        if self.tree is not None:
            remove_groups(self.tree.mount, group)


def _write(directory: Path, share: CpuShare) -> None:
    shares = round(share.weight_or_default * _DEFAULT_SHARES / DEFAULT_WEIGHT)
    write_setting(directory / "cpu.shares", str(min(max(shares, _LOWEST_SHARES), _HIGHEST_SHARES)))
    if share.quota_us is not None:
        write_setting(directory / "cpu.cfs_period_us", str(PERIOD_US))
        write_setting(directory / "cpu.cfs_quota_us", str(share.quota_us))
    elif (directory / "cpu.cfs_quota_us").exists():
        write_setting(directory / "cpu.cfs_quota_us", str(_UNLIMITED))


def _read(directory: Path) -> CpuShare:
    shares = int(read_text(directory / "cpu.shares") or _DEFAULT_SHARES)
    quota = int(read_text(directory / "cpu.cfs_quota_us") or _UNLIMITED)
    period = int(read_text(directory / "cpu.cfs_period_us") or PERIOD_US)
    return share_of(round(shares * DEFAULT_WEIGHT / _DEFAULT_SHARES), None if quota < 0 else quota, period)

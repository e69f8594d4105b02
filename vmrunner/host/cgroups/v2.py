"""CPU shares by cgroup v2, its files written directly (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import HostError
from vmrunner.host.cgroups.group_directory import (
    can_take_groups,
    make_group,
    members,
    move_process,
    read_text,
    remove_groups,
    write_setting,
)
from vmrunner.host.cgroups.hierarchy import PROC, Hierarchy, find_v2, has_controller
from vmrunner.host.cgroups.share import DEFAULT_WEIGHT, PERIOD_US, CpuShare, share_of

CONTROLLER = "cpu"
_HANDED_DOWN = "cgroup.subtree_control"
_UNLIMITED = "max"


@dataclass(frozen=True)
class CgroupV2:
    """Groups made in the nearest group above a process that may hand the `cpu` controller down.

    That is seldom the process's own: except at the root, a group that holds processes cannot (the "no internal
    processes" rule). So the process moves beside its former group, and out of the limits of that one alone.
    """

    tree: Hierarchy | None

    @classmethod
    def on_host(cls, proc: Path = PROC) -> CgroupV2:
        """As this computer has it mounted."""
        return cls(find_v2(proc))

    def present(self) -> bool:
        """See `Way`."""
        return self.tree is not None and has_controller(self.tree.mount, CONTROLLER)

    def obstacle(self) -> str | None:
        """See `Way`."""
        if self.tree is None or not self.present():
            return "cgroup v2 with the cpu controller is not mounted: it takes Linux 4.15 and no cgroup v1 `cpu` mount"
        if _parent_for(self.tree, None) is None:
            return (
                f"no group of this process below {self.tree.mount} can be written to and hand the cpu controller down: "
                "start vmrunner in a group of its own inside one that is delegated to this user (systemd 252 and later "
                "do that for every login)"
            )
        return None

    def holds(self, group: str, pid: int) -> bool:
        """See `Way`."""
        return self.present() and self.tree is not None and self.tree.named(group, pid) is not None

    def put(self, group: str, pid: int, share: CpuShare) -> CpuShare:
        """See `Way`."""
        assert self.tree is not None
        directory = self.tree.named(group, pid)
        if directory is not None:
            _write(directory, share)
            return read_group(directory)
        parent = _parent_for(self.tree, pid)
        if parent is None:
            raise HostError(
                f"no cgroup round process {pid} can hand the cpu controller down",
                hint="run vmrunner as root, or start the machine from a login that systemd 252 or later manages",
            )
        if not has_controller(parent, CONTROLLER, _HANDED_DOWN):
            write_setting(parent / _HANDED_DOWN, f"+{CONTROLLER}")
        directory = parent / group
        make_group(directory)
        _write(directory, share)
        move_process(directory, pid)
        return read_group(directory)

    def read(self, group: str, pid: int) -> CpuShare | None:
        """See `Way`."""
        if self.tree is None or not self.present():
            return None
        directory = self.tree.named(group, pid)
        return read_group(directory) if directory else None

    def drop(self, group: str) -> None:
        """See `Way`."""
        if self.tree is not None and self.present():
            remove_groups(self.tree.mount, group)


def read_group(directory: Path) -> CpuShare:
    """The share of a cgroup v2 group, whoever made it."""
    weight = int(read_text(directory / "cpu.weight") or DEFAULT_WEIGHT)
    quota, _, period = (read_text(directory / "cpu.max") or _UNLIMITED).partition(" ")
    return share_of(weight, None if quota == _UNLIMITED else int(quota), int(period or PERIOD_US))


def _write(directory: Path, share: CpuShare) -> None:
    write_setting(directory / "cpu.weight", str(share.weight_or_default))
    if share.quota_us is not None:
        write_setting(directory / "cpu.max", f"{share.quota_us} {PERIOD_US}")
    elif (directory / "cpu.max").exists():
        write_setting(directory / "cpu.max", f"{_UNLIMITED} {PERIOD_US}")


def _parent_for(tree: Hierarchy, pid: int | None) -> Path | None:
    own = tree.group_of(pid)
    if own is None:
        return None
    above = [own, *own.parents]
    inside = above[: above.index(tree.mount) + 1]
    return next((group for group in inside if _can_hand_down(group)), None)


def _can_hand_down(group: Path) -> bool:
    if not can_take_groups(group):
        return False
    if has_controller(group, CONTROLLER, _HANDED_DOWN):
        return True
    is_root = not (group / "cgroup.type").exists()
    return (
        has_controller(group, CONTROLLER)
        and os.access(group / _HANDED_DOWN, os.W_OK)
        and (is_root or not members(group))
    )

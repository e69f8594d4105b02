"""Where the kernel's cgroup trees are mounted, and in which directory of them a process is (cgroups(7))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

PROC: Final = Path("/proc")
_OWN: Final = "self"
# proc_pid_mountinfo(5): fields 4 and 5, counted from 0 here; type and options follow a lone hyphen.
_SHOWN, _MOUNT_POINT = 3, 4
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of groups."""

    mount: Path
    """The directory it is mounted at."""
    shown: PurePosixPath
    """The group that this directory shows: a container often sees only its own part of the tree."""
    controller: str
    """The cgroup v1 controller it is for; empty for cgroup v2's one tree."""
    proc: Path = PROC

    def group_of(self, pid: int | None = None) -> Path | None:
        """The directory of a process's group (None: this process's); None where the mount does not show it.

        Raises ProcessLookupError where there is no such process.
        """
        try:
            text = (self.proc / (_OWN if pid is None else str(pid)) / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(f"there is no process {pid}") from error
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            if self.controller in controllers.split(","):
                return self._directory(PurePosixPath(path))
        return None

    def named(self, group: str, pid: int) -> Path | None:
        """The directory of the process's group where that group is called so."""
        directory = self.group_of(pid)
        return directory if directory is not None and directory.name == group else None

    def _directory(self, group: PurePosixPath) -> Path | None:
        # A group outside the reader's cgroup namespace is shown as `/../other` (cgroup_namespaces(7)).
        if ".." in group.parts or not group.is_relative_to(self.shown):
            return None
        return self.mount / group.relative_to(self.shown)


def find_v1(controller: str, proc: Path = PROC) -> Hierarchy | None:
    """The cgroup v1 tree of a controller; None where it is not mounted, or cgroup v2 has the controller."""
    for kind, options, mount, shown in _mounts(proc):
        if kind == "cgroup" and controller in options:
            return Hierarchy(mount, shown, controller, proc)
    return None


def find_v2(proc: Path = PROC) -> Hierarchy | None:
    """The cgroup v2 tree; None where it is not mounted. It need not have the controller one is after."""
    for kind, _, mount, shown in _mounts(proc):
        if kind == "cgroup2":
            return Hierarchy(mount, shown, "", proc)
    return None


def has_controller(directory: Path, controller: str, file: str = "cgroup.controllers") -> bool:
    """Whether a cgroup v2 group has a controller, or with `cgroup.subtree_control` hands it to groups below."""
    try:
        return controller in (directory / file).read_text().split()
    except OSError:
        return False


def _mounts(proc: Path) -> list[tuple[str, list[str], Path, PurePosixPath]]:
    """Type, options, mount point and the group shown there, of every mounted cgroup tree."""
    try:
        lines = (proc / _OWN / "mountinfo").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        place, _, what = line.partition(" - ")
        fields, (kind, _, options) = place.split(" "), what.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            mount = Path(_plain(fields[_MOUNT_POINT]))
            found.append((kind, options.split(","), mount, PurePosixPath(_plain(fields[_SHOWN]))))
    return found


def _plain(field: str) -> str:
    r"""A field with its escapes (`\040` for a space) put back."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)

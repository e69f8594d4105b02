"""One group's directory: make it, write its settings, move a process in, remove it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline

_MEMBERS: Final = "cgroup.procs"
_EMPTY_SECONDS = 1.0
_POLL_SECONDS = 0.02
_HINTS = {
    errno.EACCES: "only root and the owner of the group may",
    errno.EPERM: "only root and the owner of the group may",
    errno.EINVAL: "a group above may allow less than is asked for here",
    errno.EBUSY: "a group that holds processes cannot hand a controller to groups below (cgroups(7))",
    errno.ENOENT: "this kernel may lack CONFIG_FAIR_GROUP_SCHED or CONFIG_CFS_BANDWIDTH",
}


def write_setting(path: Path, value: str) -> None:
    """Write one file of a group; raises HostError where the kernel refuses."""
    try:
        path.write_text(value)
    except ProcessLookupError:
        raise
    except OSError as error:
        raise HostError(
            f"`{value}` cannot be written to {path}: {error.strerror}",
            hint=_HINTS.get(error.errno or 0, "`vmrunner doctor` shows what this computer allows"),
        ) from error


def read_text(path: Path) -> str | None:
    """What a file of a group says, without the line end; None where the kernel has no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def members(directory: Path) -> list[int]:
    """The processes in a group itself, without the groups below."""
    return [int(pid) for pid in (read_text(directory / _MEMBERS) or "").split()]


def can_take_groups(directory: Path) -> bool:
    """Whether this user may make a group in there and move processes that are below it."""
    return os.access(directory, os.W_OK | os.X_OK) and os.access(directory / _MEMBERS, os.W_OK)


def make_group(directory: Path) -> None:
    """Make a group, or take an empty one that is there; raises HostError where it holds a process."""
    try:
        directory.mkdir()
    except FileExistsError as error:
        if pids := members(directory):
            raise HostError(
                f"the cgroup {directory} already holds process {pids[0]}",
                hint="end that process, or give this machine another name",
            ) from error
    except OSError as error:
        raise HostError(
            f"the cgroup {directory} cannot be made: {error.strerror}", hint=_HINTS.get(error.errno or 0)
        ) from error


def move_process(directory: Path, pid: int) -> None:
    """Move a process with all its threads into a group; on failure the group is removed again."""
    try:
        write_setting(directory / _MEMBERS, str(pid))
    except BaseException:
        with contextlib.suppress(OSError):
            directory.rmdir()
        raise


def remove_groups(top: Path, name: str) -> None:
    """Remove this user's groups of that name, wherever below `top`; raises HostError where one holds a process.

    The whole tree is searched, as the process may have been started from another login's group.
    """
    for parent, names, _ in os.walk(top):
        if name not in names:
            continue
        names.remove(name)
        directory = Path(parent, name)
        with contextlib.suppress(FileNotFoundError):
            if directory.stat().st_uid == os.geteuid():
                _remove(directory)


def _remove(directory: Path) -> None:
    """A process leaves its group a moment after it was killed, so this waits a little."""
    until = Deadline.after(_EMPTY_SECONDS)
    while True:
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno == errno.EBUSY and until.pause(_POLL_SECONDS):
                continue
            if error.errno == errno.ENOENT:
                return
            raise HostError(
                f"the cgroup {directory} cannot be removed: {error.strerror}",
                hint=f"it still holds {', '.join(map(str, members(directory))) or 'groups below it'}",
            ) from error
        return

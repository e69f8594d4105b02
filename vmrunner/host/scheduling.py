"""On which processors a thread runs and how much it yields to others: affinity and nice values.

A nice value is weighed only against threads of the same cpu cgroup or autogroup (sched(7), "The autogroup feature");
against the rest of the computer `vmrunner.host.cpu_share` is what counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Collection
from pathlib import Path

from vmrunner.errors import HostError

LOWEST_NICE = -20
HIGHEST_NICE = 19

_PROC = Path("/proc")
# capabilities(7), linux/capability.h
_CAP_SYS_NICE = 1 << 23
# user_namespaces(7): the map of the first namespace, where the kernel looks for CAP_SYS_NICE.
_FIRST_UID_MAP = ["0", "0", "4294967295"]
# getrlimit(2), RLIMIT_NICE: the floor is 20 minus the limit, as a limit cannot be negative.
_RLIMIT_NICE_ZERO = 20
_PASSES = 10


def set_affinity(thread_id: int, cpus: Collection[int]) -> tuple[int, ...]:
    """Pin one thread to processors (sched_setaffinity(2)); returns those it may use now, sorted.

    That can be fewer: the kernel leaves out what the thread's cpuset does not hold. Threads that it starts later
    inherit them, its process's other threads are not touched. Raises HostError where the kernel refuses,
    ProcessLookupError where there is no such thread.
    """
    wanted = ", ".join(map(str, sorted(cpus))) or "none"
    try:
        os.sched_setaffinity(thread_id, cpus)
    except ProcessLookupError:
        raise
    except PermissionError as error:
        raise HostError(
            f"thread {thread_id} may not be pinned to processors by this user",
            hint="only its owner and root may",
        ) from error
    except (OSError, ValueError, OverflowError) as error:
        raise HostError(
            f"thread {thread_id} cannot be pinned to processors: {wanted}",
            hint="name at least one that `grep Cpus_allowed_list /proc/self/status` lists",
        ) from error
    return read_affinity(thread_id)


def read_affinity(thread_id: int) -> tuple[int, ...]:
    """The processors one thread may use, sorted; raises ProcessLookupError where there is no such thread."""
    return tuple(sorted(os.sched_getaffinity(thread_id)))


def set_nice(pid: int, nice: int) -> int:
    """Set the nice value (-20, first served, to 19) of all threads of a process; returns its main thread's.

    setpriority(2) acts on one thread only on Linux, so each is set; threads started later inherit it. A value out of
    range becomes the nearest one. Raises HostError where this user may not, ProcessLookupError where it has ended.
    """
    nice = min(max(nice, LOWEST_NICE), HIGHEST_NICE)
    for _ in range(_PASSES):
        # A thread that was started meanwhile can have inherited the old value from one not yet set.
        different = [thread for thread in _threads(pid) if _nice_of(thread) not in {nice, None}]
        if not different:
            break
        for thread in different:
            _set_thread_nice(pid, thread, nice)
    return read_nice(pid)


def read_nice(pid: int) -> int:
    """The nice value of a process's main thread; raises ProcessLookupError where it has ended."""
    return os.getpriority(os.PRIO_PROCESS, pid)


def nice_floor() -> int:
    """The lowest nice value this user may give to a process of this one's limits (getrlimit(2), RLIMIT_NICE).

    -20 for root; without any right it is this process's own value, and a process once set higher cannot come down
    to it again.
    """
    if _may_set_any():
        return LOWEST_NICE
    limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if limit == resource.RLIM_INFINITY:
        return LOWEST_NICE
    return min(read_nice(0), max(LOWEST_NICE, _RLIMIT_NICE_ZERO - limit))


def _threads(pid: int) -> list[int]:
    try:
        return [int(entry.name) for entry in (_PROC / str(pid) / "task").iterdir()]
    except FileNotFoundError as error:
        raise ProcessLookupError(f"there is no process {pid}") from error


def _nice_of(thread_id: int) -> int | None:
    """None where the thread has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        return os.getpriority(os.PRIO_PROCESS, thread_id)
    return None


def _set_thread_nice(pid: int, thread_id: int, nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, thread_id, nice)
    except ProcessLookupError:
        return
    except PermissionError as error:
        owned = error.errno == errno.EACCES
        raise HostError(
            f"process {pid} may not be set to nice {nice} by this user",
            hint=f"without root it can go up, and down to {nice_floor()} at best; a `nice` limit in "
            "/etc/security/limits.conf that was there when it started lets it go lower"
            if owned
            else "only its owner and root may",
        ) from error


def _may_set_any() -> bool:
    """Whether this process has CAP_SYS_NICE, and not only inside a user namespace of its own."""
    with contextlib.suppress(OSError):
        if (_PROC / "self/uid_map").read_text().split() != _FIRST_UID_MAP:
            return False
        for line in (_PROC / "self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_SYS_NICE)
    return False

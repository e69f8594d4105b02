"""Save and load a machine's device state, as QEMU's migration to and from a regular file.

The file is handed over as a descriptor (`getfd`): QEMU 7.2 has no `file:` URI, and `exec:` is killed by
`-sandbox spawn=deny`. With `memory_apart` the guest's memory is not in the stream: it is a file of its own, which the
saving machine shares and the loading one maps (`x-ignore-shared`).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vmrunner.host.deadline import Deadline
from vmrunner.machine.monitor import CommandRefused, Monitor

_FD_NAME = "state"
_POLL_SECONDS = 0.002
# The default of 128 MiB/s is meant for networks.
_BYTES_PER_SECOND = 1 << 40


class StateNotTransferred(Exception):
    """QEMU could not save or load the state; the text is QEMU's."""


@dataclass(frozen=True)
class SavedState:
    """A saved machine: its file, whether the memory is in another one, and what the guest's clock showed.

    `guest_clock` is in seconds since the epoch.
    """

    path: Path
    memory_apart: bool
    guest_clock: float


def save_state(monitor: Monitor, path: Path, *, memory_apart: bool, deadline: Deadline) -> float:
    """Stop the machine and write its state to the new file `path`; it stays stopped, and the file is not synced.

    Returns when it was stopped, by the host's clock in seconds since the epoch.

    Raises StateNotTransferred, as where a 9p share is mounted in the guest; MonitorLost where QEMU is gone.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        monitor.execute("stop", deadline=deadline)
        stopped_at = time.time()
        _prepare(monitor, memory_apart=memory_apart, deadline=deadline)
        monitor.execute("migrate-set-parameters", {"max-bandwidth": _BYTES_PER_SECOND}, deadline=deadline)
        _transfer(monitor, fd, "migrate", deadline)
    except CommandRefused as error:
        raise StateNotTransferred(str(error)) from error
    finally:
        os.close(fd)
    return stopped_at


def load_state(monitor: Monitor, path: Path, *, memory_apart: bool, deadline: Deadline) -> None:
    """Load the state in `path` into a machine that was started `incoming`; it stays stopped until `resume`.

    Raises StateNotTransferred; MonitorLost where QEMU ended over it (it says why in its log).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _prepare(monitor, memory_apart=memory_apart, deadline=deadline)
        _transfer(monitor, fd, "migrate-incoming", deadline)
    except CommandRefused as error:
        raise StateNotTransferred(str(error)) from error
    finally:
        os.close(fd)


def resume(monitor: Monitor, *, deadline: Deadline) -> float:
    """Let a stopped machine go on; returns when, by the host's clock. Raises CommandRefused, MonitorLost."""
    monitor.execute("cont", deadline=deadline)
    return time.time()


def _prepare(monitor: Monitor, *, memory_apart: bool, deadline: Deadline) -> None:
    capabilities = [{"capability": "x-ignore-shared", "state": memory_apart}]
    monitor.execute("migrate-set-capabilities", {"capabilities": capabilities}, deadline=deadline)


def _transfer(
    monitor: Monitor, fd: int, command: Literal["migrate", "migrate-incoming"], deadline: Deadline
) -> None:
    monitor.pass_descriptor(_FD_NAME, fd, deadline=deadline)
    monitor.execute(command, {"uri": f"fd:{_FD_NAME}"}, deadline=deadline)
    while True:
        progress: dict[str, Any] = monitor.execute("query-migrate", deadline=deadline)
        status = progress.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise StateNotTransferred(str(progress.get("error-desc", f"QEMU says only: {status}")))
        if not deadline.pause(_POLL_SECONDS):
            raise StateNotTransferred("it took too long")

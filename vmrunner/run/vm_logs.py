"""What a long-lived VM printed: its console, its last test run, and QEMU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from vmrunner.guest import inbox
from vmrunner.host.deadline import Deadline
from vmrunner.host.followed_file import FollowedFile
from vmrunner.machine import registry
from vmrunner.machine.vm_record import VmDirectory, VmState

LogKind = Literal["serial", "unit", "qemu"]
LOG_KINDS: Final[tuple[LogKind, ...]] = ("serial", "unit", "qemu")

_LOOK_SECONDS: Final = 0.2


def read_logs(name: str, kinds: Sequence[LogKind], *, follow: bool) -> Iterator[tuple[LogKind, bytes]]:
    """All that is in the logs, in pieces; with `follow` all that comes too, until the VM does not run any more.

    A test run that begins meanwhile is followed from its beginning. Raises UsageError where there is no such VM.
    """
    registry.find(name)
    files: dict[LogKind, FollowedFile] = {}
    while True:
        # Asked first: what was written before the end is there to be read after this.
        ended = not follow or not _is_running(name)
        yield from _new(name, kinds, files)
        if ended:
            return
        Deadline.after(_LOOK_SECONDS).pause(_LOOK_SECONDS)


def _new(
    name: str, kinds: Sequence[LogKind], files: dict[LogKind, FollowedFile]
) -> Iterator[tuple[LogKind, bytes]]:
    for kind in kinds:
        path = _path(name, kind)
        if path is None:
            continue
        if kind not in files or files[kind].path != path:
            files[kind] = FollowedFile(path)
        while data := files[kind].read():
            yield kind, data


def _path(name: str, kind: LogKind) -> Path | None:
    directory = VmDirectory(name)
    match kind:
        case "serial":
            return directory.serial_log
        case "qemu":
            return directory.qemu_log
        case "unit":
            run = registry.last_run(name)
            return run / inbox.NEXTEST_LOG if run else None


def _is_running(name: str) -> bool:
    return registry.exists(name) and registry.find(name).state is VmState.RUNNING

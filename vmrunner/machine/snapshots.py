"""Named states of a long-lived VM on disk: memory, devices and disk at one moment, taken while it runs.

::

    vms/<name>/snapshots/<tag>/
        snapshot.json   what it is; the directory appears complete or not at all
        state           the machine's memory and the state of its devices
        disk.qcow2      the disk of that moment, over the same base as the VM's own
        empty-0-*.qcow2 and so on: those of the disks besides the root's that can be written to
        login-key       what opens the guest in that state
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vmrunner.errors import HostError, UsageError, VmDamaged
from vmrunner.guest.key import LoginKey
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import directory_made_atomically, remove_tree, sync_files, write_atomically
from vmrunner.host.keyed_store import bytes_on_disk
from vmrunner.host.paths import private
from vmrunner.host.signals import shielded
from vmrunner.host.sparse_copy import copy_sparse
from vmrunner.machine.device_state import SavedState, StateNotTransferred, resume, save_state
from vmrunner.machine.disk_files import written_files
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import CommandRefused, MonitorLost
from vmrunner.machine.plan import MachinePlan
from vmrunner.machine.vm_record import VmDirectory, VmRecord

FORMAT_VERSION: Final = 1

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RECORD: Final = "snapshot.json"
_RESUME_SECONDS: Final = 20.0
_DISK_RESERVE: Final = 64 << 20


class SnapshotRecord(BaseModel, frozen=True, extra="forbid"):
    """What a snapshot is.

    `created` and `guest_clock` (what the guest's clock showed) are seconds since the epoch, `paused_seconds` is how long
    the guest stood still for it, `plan` the machine that it fits.
    """

    format_version: int = FORMAT_VERSION
    tag: str
    created: float
    guest_clock: float
    paused_seconds: float
    plan: MachinePlan
    public_key: str
    template_key: str | None
    qemu_version: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is there."""

    directory: Path
    record: SnapshotRecord

    @property
    def saved(self) -> SavedState:
        """Memory and devices."""
        return SavedState(self.directory / "state", memory_apart=False, guest_clock=self.record.guest_clock)

    @property
    def disks(self) -> list[tuple[Path, Path]]:
        """The files of its disks: where the machine has each, and the copy of that moment."""
        return _pairs(self.directory, self.record.plan)

    @property
    def login_key(self) -> LoginKey:
        """What opens the guest."""
        return LoginKey((self.directory / "login-key").read_text(), self.record.public_key)

    @property
    def size(self) -> int:
        """Bytes that it takes on the host's disk."""
        return bytes_on_disk(self.directory)


def check_tag(tag: str) -> str:
    """`tag`, where a snapshot can be called so. Raises UsageError."""
    if _TAG.fullmatch(tag) is None:
        raise UsageError(
            f"{tag!r} cannot be the name of a snapshot",
            hint="use up to 63 letters, digits, `-`, `_` and `.`, the first a letter or digit",
        )
    return tag


def save_snapshot(
    machine: Machine, record: VmRecord, tag: str, *, clock_offset: float, deadline: Deadline
) -> Snapshot:
    """Save a running machine, which stands still meanwhile and then goes on, whatever comes of it.

    `clock_offset` is the guest's clock less the host's. A snapshot of the same tag is replaced when the new one is
    complete. Raises HostError where it cannot be saved, and then nothing is left of it.
    """
    target = private(record.directory.snapshots) / tag
    _check_room(machine, record)
    try:
        with directory_made_atomically(target) as directory:
            (directory / "login-key").touch(0o600)
            (directory / "login-key").write_text(record.login_key.private)
            began = time.time()
            with _resumed_afterwards(machine):
                stopped_at = save_state(
                    machine.monitor, directory / "state", memory_apart=False, deadline=deadline
                )
                for source, copy in _pairs(directory, record.plan):
                    copy_sparse(source, copy)
            paused_seconds = time.time() - stopped_at
            sync_files(directory)
            saved = SnapshotRecord(
                tag=tag, created=began, guest_clock=stopped_at + clock_offset,
                paused_seconds=paused_seconds, plan=record.plan, public_key=record.public_key,
                template_key=record.template_key, qemu_version=record.qemu_version,
            )  # fmt: skip
            write_atomically(directory / _RECORD, saved.model_dump_json(indent=2))
            remove_tree(target)
    except (OSError, StateNotTransferred, MonitorLost, CommandRefused) as error:
        machine.check_alive()
        raise _not_saved(record, error) from error
    return Snapshot(target, saved)


def find_snapshot(name: str, tag: str | None) -> Snapshot:
    """The snapshot of that tag, without one the newest. Raises UsageError where there is none, VmDamaged."""
    if tag is None:
        found = list_snapshots(name)
        if not found:
            raise UsageError(
                f"the VM `{name}` has no snapshots", hint=f"`vmrunner snapshot save {name}` takes one"
            )
        return found[-1]
    directory = VmDirectory(name).snapshots / check_tag(tag)
    if not directory.is_dir():
        tags = [snapshot.record.tag for snapshot in list_snapshots(name)]
        raise UsageError(
            f"the VM `{name}` has no snapshot `{tag}`",
            hint=f"it has {', '.join(tags)}" if tags else f"`vmrunner snapshot save {name} {tag}` takes one",
        )
    try:
        record = SnapshotRecord.model_validate_json((directory / _RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise VmDamaged(
            f"the snapshot `{tag}` of the VM `{name}` cannot be read",
            hint=f"`vmrunner snapshot rm {name} {tag}` removes it",
            details=str(error),
        ) from error
    return Snapshot(directory, record)


def list_snapshots(name: str) -> list[Snapshot]:
    """The snapshots of a VM that can be read, the oldest first."""
    directory = VmDirectory(name).snapshots
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name[0] == ".":
            continue
        try:
            found.append(find_snapshot(name, path.name))
        except VmDamaged:
            continue
    return sorted(found, key=lambda snapshot: snapshot.record.created)


def remove_snapshot(name: str, tag: str) -> None:
    """Remove a snapshot, one that cannot be read too. Raises UsageError where there is none."""
    directory = VmDirectory(name).snapshots / check_tag(tag)
    if not directory.is_dir():
        find_snapshot(name, tag)
    remove_tree(directory)


def drop_unused_bases(record: VmRecord) -> None:
    """Remove the disks of templates that neither the VM nor a snapshot of it lies on any more."""
    plans = [record.plan, *(snapshot.record.plan for snapshot in list_snapshots(record.name))]
    used = {plan.disk.backing_file for plan in plans}
    for base in record.directory.path.glob("base-*.qcow2"):
        if base not in used:
            base.unlink()


def _pairs(directory: Path, plan: MachinePlan) -> list[tuple[Path, Path]]:
    root, *extra = written_files(plan)
    return [(root, directory / "disk.qcow2"), *((path, directory / path.name) for path in extra)]


@contextmanager
def _resumed_afterwards(machine: Machine) -> Iterator[None]:
    try:
        yield
    finally:
        with shielded():
            resume(machine.monitor, deadline=Deadline.after(_RESUME_SECONDS))


def _check_room(machine: Machine, record: VmRecord) -> None:
    """Refuse at once where not even what the guest's disk has now would fit; memory is known only once it is saved."""
    disks = sum(path.stat().st_blocks * 512 for path in written_files(machine.plan))
    if shutil.disk_usage(record.directory.path).free < disks + _DISK_RESERVE:
        raise HostError(
            f"there is no room for a snapshot of the VM `{record.name}` in {record.directory.path}",
            hint="free some disk space",
        )


def _not_saved(record: VmRecord, error: Exception) -> HostError:
    text = str(error)
    full = "No space left" in text
    return HostError(
        f"no snapshot of the VM `{record.name}` could be saved" + (": the disk is full" if full else ""),
        hint="free some disk space; the VM runs on" if full else "the VM runs on",
        details=text,
    )

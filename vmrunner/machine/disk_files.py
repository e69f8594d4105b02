"""The files behind a machine's disks: the root disk's overlay, and those of the disks besides it."""

from __future__ import annotations

import shutil
from pathlib import Path

from vmrunner.errors import CommandFailed, ImageError
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command
from vmrunner.machine.plan import ExtraDisk, MachinePlan, RootDisk
from vmrunner.machine.templates import Template

_CREATE_SECONDS = 60.0


def copy_overlay(template: Template, overlay: Path) -> None:
    """The template's empty overlay as a machine's own; a copy of 200 kB takes less time than to run qemu-img."""
    try:
        shutil.copyfile(template.overlay, overlay)
        overlay.chmod(0o600)
    except OSError as error:
        if not template.overlay.exists():
            raise  # the template is gone, which is another matter
        raise ImageError(
            f"the machine's disk could not be made at {overlay}: {error.strerror}", hint="is the disk full?"
        ) from error


def make_overlay(disk: RootDisk, *, qemu_img: Path, deadline: Deadline, unchecked: bool = False) -> None:
    """Make the qcow2 overlay that takes all the machine writes. `unchecked`: the backing file need not be there yet.

    Raises ImageError.
    """
    argv: list[str | Path] = [
        qemu_img, "create", "-q", "-f", "qcow2", *(("-u",) if unchecked else ()),
        "-b", disk.backing_file, "-F", disk.backing_format,
        disk.overlay, str(int(disk.size)),
    ]  # fmt: skip
    _create(argv, disk.overlay, f"the machine's disk could not be made over {disk.backing_file}", deadline)


def make_extra_disks(plan: MachinePlan, *, deadline: Deadline, anew: bool = True) -> None:
    """Make the files of the disks besides the root's; those that are there stay where they are not made `anew`.

    Raises ImageError.
    """
    for disk in plan.extra_disks:
        if disk.readonly or (disk.file.exists() and not anew):
            continue
        disk.file.unlink(missing_ok=True)
        _create(
            [plan.qemu.with_name("qemu-img"), "create", "-q", "-f", "qcow2", *_origin(disk)],
            disk.file, f"the disk `{disk.serial}` could not be made", deadline,
        )  # fmt: skip


def written_files(plan: MachinePlan) -> tuple[Path, ...]:
    """The files that hold all the machine has written, the root disk's first."""
    return (plan.disk.overlay, *(disk.file for disk in plan.extra_disks if not disk.readonly))


def _origin(disk: ExtraDisk) -> list[str | Path]:
    if disk.backing_file:
        return ["-b", disk.backing_file, "-F", disk.backing_format, disk.file]
    assert disk.size is not None
    return [disk.file, str(int(disk.size))]


def _create(argv: list[str | Path], made: Path, failure: str, deadline: Deadline) -> None:
    try:
        run_command(argv, deadline=deadline.within(_CREATE_SECONDS))
    except CommandFailed as error:
        raise ImageError(failure, hint="is the disk full?", details=error.details) from error
    made.chmod(0o600)

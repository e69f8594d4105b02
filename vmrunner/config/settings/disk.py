"""The disks: how large, how they are written, how fast the root's may be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vmrunner.config import checks, disk_values
from vmrunner.config.option import Option, pairs_like
from vmrunner.config.settings.types import NO_ENTRIES, FilePath, ReadOnly, Settings, Switch
from vmrunner.config.units import Size

Limit = Annotated[str, Field(coerce_numbers_to_str=True)]


class DiskSettings(Settings):
    """The root disk, and those besides it."""

    disk: Annotated[
        Size,
        AfterValidator(checks.between("1G", "64T")),
        Option("disk", "SIZE", "size the root disk is grown to; only what is written takes room on the host"),
    ] = Size.parse("8G")
    disk_cache: Annotated[
        Literal["auto", "writeback", "none", "writethrough", "directsync", "unsafe"],
        Option("disk", "MODE", "cache mode as QEMU has it: auto (unsafe for a machine of one run, writeback for a "
               "long-lived VM), writeback, none, writethrough, directsync or unsafe"),
    ] = "auto"  # fmt: skip
    disk_aio: Annotated[
        Literal["threads", "native", "io_uring"],
        Option(
            "disk",
            "HOW",
            "how QEMU reads and writes: threads, native (with disk-cache none or directsync) or io_uring",
        ),
    ] = "threads"
    disk_discard: Annotated[
        Literal["unmap", "ignore"],
        Option(
            "disk",
            "HOW",
            "what the guest's discards do: give the room back to this host (unmap) or nothing (ignore)",
        ),
    ] = "unmap"
    disk_iothread: Annotated[
        Switch,
        Option("disk", "SWITCH", "a thread of its own for the disk"),
    ] = "off"
    disk_limits: Annotated[
        Mapping[str, Limit],
        AfterValidator(disk_values.check_limits),
        *ReadOnly,
        Option("disk", "LIMIT=NUMBER", "a limit of the disk: bps, iops (both ways), bps-read, bps-write, iops-read, iops-write, "
               "each also with -burst; burst-seconds", split=shlex.split, pairs=pairs_like("LIMIT=NUMBER", "bps=10M or iops=500")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip
    empty_disks: Annotated[
        tuple[Annotated[Size, AfterValidator(checks.between("1M", "64T"))], ...],
        Option("disk", "SIZE", "an empty disk besides the root's, /dev/disk/by-id/virtio-empty-0 and on"),
    ] = ()
    overlay_disks: Annotated[
        tuple[FilePath, ...],
        Option("disk", "FILE", "a disk image (.qcow2, else raw) as one more disk, virtio-overlay-0 and on; what the guest "
               "writes to it goes to a file of the machine's"),
    ] = ()  # fmt: skip
    readonly_disks: Annotated[
        tuple[FilePath, ...],
        Option("disk", "FILE", "a disk image (.qcow2, else raw) as one more disk that cannot be written to, virtio-readonly-0 "
               "and on"),
    ] = ()  # fmt: skip

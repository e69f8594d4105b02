"""The disks: file, format, limits, device; one block node each, the device's at the top. Limits are the root disk's alone."""

from __future__ import annotations

import json

from vmrunner.machine.hardware.words import option
from vmrunner.machine.plan import ExtraDisk, MachinePlan

DISK_ID = "disk0"
THROTTLE_GROUP = "root-limits"
"""QEMU's object that holds the disk's limits; it is there without any too, so that they can be set while it runs."""
TOP_NODE = "root-throttle"
"""The block node that the device sees; a new size is told to this one."""

_IOTHREAD = "disk-thread"
# qemu(1), -drive cache=: what each mode is made of.
_DIRECT = {"none", "directsync"}
_WRITE_THROUGH = {"writethrough", "directsync"}


def disk_arguments(plan: MachinePlan) -> list[str]:
    """The root disk. Flushes of a throw-away machine are not passed on: its overlay need not outlive a host crash."""
    options = plan.disk_options
    cache, aio, device = _cache(plan), _aio(plan), _of_device(plan)
    return [
        *(("-object", option("iothread", id=_IOTHREAD)) if options.iothread else ()),
        "-object", _throttle_group(plan.disk_limits),
        "-blockdev", option(
            "file", **{"node-name": "root-file"}, filename=plan.disk.overlay, discard=options.discard, **aio, **cache
        ),
        "-blockdev", option("qcow2", **{"node-name": "root"}, file="root-file", discard=options.discard, **cache),
        "-blockdev", option(
            "throttle", **{"node-name": TOP_NODE, "throttle-group": THROTTLE_GROUP}, file="root",
            discard=options.discard, **cache,
        ),
        "-device", option("virtio-blk-pci", id=DISK_ID, drive=TOP_NODE, serial="root", **device),
    ]  # fmt: skip


def extra_disk_arguments(plan: MachinePlan) -> list[str]:
    """The disks besides the root's, read and written as that is; the guest's Linux finds them in this order."""
    return [word for disk in plan.extra_disks for word in _extra_disk(plan, disk)]


def _extra_disk(plan: MachinePlan, disk: ExtraDisk) -> list[str]:
    file, node = f"{disk.serial}-file", disk.serial
    written_as = disk.backing_format if disk.readonly else "qcow2"
    # A backing file is opened read-only and never for anything else, whoever writes to the overlay.
    access = {"read-only": "on"} if disk.readonly else {"discard": plan.disk_options.discard}
    cache = _cache(plan)
    return [
        "-blockdev", option("file", **{"node-name": file}, filename=disk.file, **access, **_aio(plan), **cache),
        "-blockdev", option(written_as, **{"node-name": node}, file=file, **access, **cache),
        "-device", option("virtio-blk-pci", id=f"disk-{node}", drive=node, serial=node, **_of_device(plan)),
    ]  # fmt: skip


def _mode(plan: MachinePlan) -> str:
    asked = plan.disk_options.cache
    return asked if asked != "auto" else "writeback" if plan.long_lived else "unsafe"


def _cache(plan: MachinePlan) -> dict[str, str]:
    mode = _mode(plan)
    direct = {"cache.direct": "on"} if mode in _DIRECT else {}
    return {"cache.no-flush": "on" if mode == "unsafe" else "off", **direct}


def _aio(plan: MachinePlan) -> dict[str, str]:
    aio = plan.disk_options.aio
    return {} if aio == "threads" else {"aio": aio}


def _of_device(plan: MachinePlan) -> dict[str, str]:
    through = {"write-cache": "off"} if _mode(plan) in _WRITE_THROUGH else {}
    thread = {"iothread": _IOTHREAD} if plan.disk_options.iothread else {}
    return {**through, **thread}


def _throttle_group(limits: tuple[tuple[str, int], ...]) -> str:
    if not limits:
        return option("throttle-group", id=THROTTLE_GROUP)
    return json.dumps({"qom-type": "throttle-group", "id": THROTTLE_GROUP, "limits": dict(limits)})

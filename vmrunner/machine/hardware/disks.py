"""The root disk: file, format, limits, device; one block node each, the device's at the top."""

from __future__ import annotations

import json

from vmrunner.machine.hardware.words import option
from vmrunner.machine.plan import MachinePlan

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
    mode = options.cache if options.cache != "auto" else "writeback" if plan.long_lived else "unsafe"
    cache = {"cache.no-flush": "on" if mode == "unsafe" else "off"}
    if mode in _DIRECT:
        cache["cache.direct"] = "on"
    aio = {} if options.aio == "threads" else {"aio": options.aio}
    device = {"write-cache": "off"} if mode in _WRITE_THROUGH else {}
    if options.iothread:
        device["iothread"] = _IOTHREAD
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


def _throttle_group(limits: tuple[tuple[str, int], ...]) -> str:
    if not limits:
        return option("throttle-group", id=THROTTLE_GROUP)
    return json.dumps({"qom-type": "throttle-group", "id": THROTTLE_GROUP, "limits": dict(limits)})

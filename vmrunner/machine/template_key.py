"""The key of a memory template: all that must be the same when it is restored, in one digest.

QEMU notices a part of what does not match (another memory size, a missing device) and not another: a different CPU
model is restored "completed" with a dead guest (measured, QEMU 7.2). So the key is made of QEMU's whole argument list,
with stand-ins for what may differ from run to run, and of what the arguments only name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vmrunner.machine.arguments import qemu_arguments
from vmrunner.machine.plan import DiskOptions, MachinePlan, Placement, RootDisk

FORMAT_VERSION = 3
"""Counts up with every change in what a template consists of or how it is made (what warms it, how that is undone); part
of the key and of its record."""

_ANY = Path("/any")
_CPUINFO = Path("/proc/cpuinfo")


def template_key(plan: MachinePlan, *, image_digest: str, guest_tools: Mapping[str, str]) -> str:
    """The key for machines like `plan`. `guest_tools` names what is put into the guest before it is saved.

    Not in it: names and paths of shares and logs, the login key, the kind of network, how long the machine lives, and
    all else that is set when a machine starts from the template, not when that is made.
    """
    parts = {
        "format": FORMAT_VERSION,
        "image": image_digest,
        "qemu": _identity(plan.qemu),
        "processor": _processor() if plan.accelerator == "kvm" else None,
        "arguments": qemu_arguments(_without_its_own(plan), monitor_fd="any"),
        "disk": [str(plan.disk.backing_file), plan.disk.backing_format, int(plan.disk.size)],
        "boot": [_identity(path) for path in (plan.boot.kernel, plan.boot.initrd) if path and path.exists()],
        "guest_tools": dict(guest_tools),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shape_of(plan: MachinePlan) -> MachinePlan:
    """The plan without what can be another for each machine that is restored: what its template is booted as.

    A write-through cache stays, for the guest sees it; so does a random number generator that is off.
    """
    written_through = plan.disk_options.cache in {"writethrough", "directsync"}
    return replace(
        plan,
        network="restricted",
        forwards=(),
        host_forwards=(),
        dns=None,
        host_access=True,
        nics=1,
        extra_disks=(),
        placement=Placement(),
        prealloc=False,
        balloon=False,
        disk_options=DiskOptions(cache="writethrough" if written_through else "auto"),
        disk_limits=(),
        watchdog="none" if plan.watchdog else None,
        rng="off" if plan.rng == "off" else "builtin",
        memory_file=None,
        incoming=False,
        long_lived=None,
    )


def _without_its_own(plan: MachinePlan) -> MachinePlan:
    """The plan with stand-ins for what is a single machine's own."""
    return replace(
        shape_of(plan),
        name="any",
        disk=RootDisk(_ANY, plan.disk.backing_file, plan.disk.backing_format, plan.disk.size),
        shares=tuple(replace(share, path=_ANY) for share in plan.shares),
        credentials=tuple((name, "any") for name, _ in plan.credentials),
        serial_log=_ANY,
    )


def _processor() -> list[str]:
    """What a guest under KVM sees of this computer's processor; a home directory may be shared between computers."""
    first = _CPUINFO.read_text().split("\n\n", 1)[0].splitlines()
    return [
        line for line in first if line.startswith(("vendor_id", "cpu family", "model", "stepping", "flags"))
    ]


def _identity(program: Path) -> list[str | int]:
    """A program by what changes when it is replaced; its version alone does not tell two builds apart."""
    resolved = program.resolve()
    found = resolved.stat()
    return [str(resolved), found.st_size, found.st_mtime_ns]

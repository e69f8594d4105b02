"""The disk of a long-lived VM that does not run, made larger; its file system grows when the guest boots."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from vmrunner.config.units import Size
from vmrunner.errors import CommandFailed, ConfigError, HostError
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command
from vmrunner.machine.plan import MachinePlan
from vmrunner.machine.vm_record import VmRecord, write_record
from vmrunner.run.planning import GROW_ARGUMENT

_RESIZE_SECONDS: Final = 60.0


def grow_stopped(record: VmRecord, size: Size, *, deadline: Deadline) -> VmRecord:
    """Make the disk `size` bytes large; nothing where it is that already. Raises ConfigError where it would shrink."""
    disk = record.plan.disk
    if size < disk.size:
        raise ConfigError(
            f"`disk` is {size}, but the disk of the VM `{record.name}` has {disk.size} already",
            hint="a disk can only grow",
        )
    if size == disk.size:
        return record
    qemu_img = record.plan.qemu.with_name("qemu-img")
    try:
        run_command(
            [qemu_img, "resize", "-q", "-f", "qcow2", disk.overlay, str(int(size))],
            deadline=deadline.within(_RESIZE_SECONDS),
        )
    except CommandFailed as error:
        raise HostError(
            f"the disk of the VM `{record.name}` could not be made {size} large", details=error.details
        ) from error
    grown = record.changed(
        plan=grown_plan(record.plan, size), settings={**record.settings, "disk": str(size)}
    )
    write_record(grown)
    return grown


def grown_plan(plan: MachinePlan, size: Size) -> MachinePlan:
    """The plan with a disk of that size, and a guest that looks after its file system when it boots."""
    boot = plan.boot
    if GROW_ARGUMENT not in boot.command_line:
        boot = replace(boot, command_line=(*boot.command_line, GROW_ARGUMENT))
    return replace(plan, disk=replace(plan.disk, size=size), boot=boot)

"""A machine's plan with plain values, for tests that look at one part of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vmrunner.config.units import Size
from vmrunner.machine.plan import KernelBoot, MachinePlan, RootDisk, Share

PLAN = MachinePlan(
    name="vmrunner-1",
    qemu=Path("/usr/bin/qemu-system-x86_64"),
    machine_type="pc-q35-7.2",
    accelerator="kvm",
    cpu_model="host",
    cpus=2,
    memory=Size.parse("1G"),
    boot=KernelBoot(Path("/img/vmlinuz"), Path("/img/initrd"), ("console=ttyS0", "root=/dev/vda")),
    disk=RootDisk(Path("/run/overlay.qcow2"), Path("/img/root.img"), "raw", Size.parse("8G")),
    network="restricted",
    shares=(Share("in", Path("/run/in"), readonly=True), Share("out", Path("/run/out"), readonly=False)),
    credentials=(("ssh.authorized_keys.root", "ssh-ed25519 AAAA vmrunner\n"),),
    serial_log=Path("/run/serial.log"),
)


def sample_plan(**changes: Any) -> MachinePlan:
    """The plan with some fields changed."""
    return replace(PLAN, **changes)

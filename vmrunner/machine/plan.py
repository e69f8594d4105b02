"""What one machine will be: decided before anything is started, printable, comparable.

The QEMU argument list is a pure function of a `MachinePlan` (see `vmrunner.machine.arguments`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmrunner.config.units import Size

IN_TAG = "in"
OUT_TAG = "out"


@dataclass(frozen=True)
class Share:
    """A host directory that the guest may mount by its 9p `tag`; `readonly` is enforced by QEMU, not by the guest."""

    tag: str
    path: Path
    readonly: bool


@dataclass(frozen=True)
class RootDisk:
    """The first virtio disk: a qcow2 `overlay` of `size` bytes over a `backing_file` that nobody writes to."""

    overlay: Path
    backing_file: Path
    backing_format: Literal["raw", "qcow2"]
    size: Size


@dataclass(frozen=True)
class KernelBoot:
    """Direct kernel boot: what QEMU loads and what the kernel is told."""

    kernel: Path
    initrd: Path | None
    command_line: tuple[str, ...]


@dataclass(frozen=True)
class MachinePlan:
    """Everything about one machine, resolved; paths are absolute."""

    name: str
    qemu: Path
    accelerator: Literal["kvm", "tcg"]
    cpu_model: str
    cpus: int
    memory: Size
    boot: KernelBoot
    disk: RootDisk
    network: Literal["restricted", "user"]
    shares: tuple[Share, ...]
    credentials: tuple[tuple[str, str], ...]
    serial_log: Path
    extra_arguments: tuple[str, ...] = ()

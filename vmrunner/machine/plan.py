"""What one machine will be: decided before anything is started, printable, comparable.

The QEMU argument list is a pure function of a `MachinePlan` (see `vmrunner.machine.arguments`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vmrunner.config.units import Size
from vmrunner.guest.key import CREDENTIAL

IN_TAG = "in"
OUT_TAG = "out"
STORE_TAG = "store"
"""The host's Nix store, where the machine has that."""


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
class MemoryFile:
    """A file that is the guest's memory.

    `shared`: what the guest writes goes to the file (mmap(2), MAP_SHARED); else it stays in QEMU's own memory, and the
    file is only read (MAP_PRIVATE).
    """

    path: Path
    shared: bool


@dataclass(frozen=True)
class LongLived:
    """What a machine has that outlives the process which started it: sockets (paths of at most 107 bytes, unix(7)).

    Such a machine also reboots when its guest does, and its disk's flushes reach the host's disk.
    """

    monitor_socket: Path
    console_socket: Path


@dataclass(frozen=True)
class MachinePlan:
    """Everything about one machine, resolved; paths are absolute.

    `machine_type` is QEMU's versioned name, such as `pc-q35-7.2`. An `incoming` machine does not boot: it waits for
    saved device state to be loaded into it.
    """

    name: str
    qemu: Path
    machine_type: str
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
    memory_file: MemoryFile | None = None
    incoming: bool = False
    long_lived: LongLived | None = None

    @property
    def store(self) -> Path | None:
        """The Nix store of this host that the guest can mount; None for none."""
        return next((share.path for share in self.shares if share.tag == STORE_TAG), None)

    @property
    def host_key_file(self) -> Path:
        """Holds the guest's host key as an SMBIOS string; beside the overlay, which no share has either."""
        return self.disk.overlay.with_name("host-key")


def with_shares(plan: MachinePlan, *, inbox: Path, out: Path) -> MachinePlan:
    """The same machine with other directories on the host behind the shares of its runs."""
    paths = {IN_TAG: inbox, OUT_TAG: out}
    shares = (replace(share, path=paths.get(share.tag, share.path)) for share in plan.shares)
    return replace(plan, shares=tuple(shares))


def with_credential(plan: MachinePlan, authorized_key: str) -> MachinePlan:
    """The same machine, opened by another login key."""
    return replace(plan, credentials=tuple(
        (name, authorized_key if name == CREDENTIAL else value) for name, value in plan.credentials
    ))  # fmt: skip

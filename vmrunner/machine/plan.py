"""What one machine will be: decided before anything is started, printable, comparable.

The QEMU argument list is a pure function of a `MachinePlan` (see `vmrunner.machine.arguments`).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vmrunner.config.cpu_values import Topology
from vmrunner.config.memory_values import NumaNode
from vmrunner.config.network_values import Forward, HostForward
from vmrunner.config.units import Size
from vmrunner.guest.key import CREDENTIAL

Network = Literal["none", "restricted", "user"]
"""What the tests reach: not even a network card, nothing outside the guest, or what this host reaches."""

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
class ExtraDisk:
    """A disk besides the root's, known in the guest by its `serial` (/dev/disk/by-id/virtio-SERIAL).

    `file` is what QEMU opens: the qcow2 overlay over `backing_file` (without one: an empty disk of `size` bytes), or the
    image itself where it is `readonly`. `backing_format` is the format of the image that the user named.
    """

    serial: str
    file: Path
    backing_file: Path | None = None
    backing_format: Literal["raw", "qcow2"] = "raw"
    size: Size | None = None
    readonly: bool = False


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
    file is only read (MAP_PRIVATE). `own`: no other machine has it, and it can go when QEMU has opened it.
    """

    path: Path
    shared: bool
    own: bool = False


@dataclass(frozen=True)
class DiskOptions:
    """How QEMU reads and writes the root disk. `cache` is a mode of QEMU's, or `auto` (by how long the machine lives)."""

    cache: Literal["auto", "writeback", "none", "writethrough", "directsync", "unsafe"] = "auto"
    aio: Literal["threads", "native", "io_uring"] = "threads"
    discard: Literal["unmap", "ignore"] = "unmap"
    iothread: bool = False


@dataclass(frozen=True)
class Placement:
    """How this host runs the machine's threads; nothing of it is in QEMU's arguments.

    `pins` are the host CPUs of each vCPU that is pinned, `weight` and `quota` (percent of one CPU) those of a cgroup.
    """

    pins: tuple[tuple[int, tuple[int, ...]], ...] = ()
    weight: int | None = None
    quota: int | None = None
    nice: int = 0


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
    saved device state to be loaded into it. Up to `cpus_max` vCPUs can be in use (None: as many as there are at the
    start), and up to `memory_max` bytes of memory (None: `memory`). `numa_distances` are pairs of nodes and their distance.
    `disk_limits` are properties of QEMU's throttle group. `dns` is the address of another name server than QEMU's.
    `nics` counts all network cards. `rtc` is what the clock shows at the start.
    `may_break_booting`: this QEMU emulates several vCPUs with a defect (`host.qemu`).
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
    network: Network
    shares: tuple[Share, ...]
    credentials: tuple[tuple[str, str], ...]
    serial_log: Path
    extra_arguments: tuple[str, ...] = ()
    memory_file: MemoryFile | None = None
    incoming: bool = False
    long_lived: LongLived | None = None
    cpus_max: int | None = None
    cpu_topology: Topology | None = None
    cpu_features: tuple[str, ...] = ()
    placement: Placement = Placement()
    memory_max: Size | None = None
    numa_nodes: tuple[NumaNode, ...] = ()
    numa_distances: tuple[tuple[int, int, int], ...] = ()
    hugepages: Literal["off", "2M", "1G"] = "off"
    prealloc: bool = False
    balloon: bool = False
    disk_options: DiskOptions = DiskOptions()
    disk_limits: tuple[tuple[str, int], ...] = ()
    extra_disks: tuple[ExtraDisk, ...] = ()
    forwards: tuple[Forward, ...] = ()
    host_forwards: tuple[HostForward, ...] = ()
    dns: str | None = None
    host_access: bool = True
    nics: int = 1
    mac: str | None = None
    watchdog: str | None = None
    rng: Literal["builtin", "urandom", "off"] = "builtin"
    rtc: str = "utc"
    rtc_drift: Literal["none", "slew"] = "none"
    may_break_booting: bool = False

    @property
    def more_memory(self) -> int:
        """Bytes that the guest can have besides those of its start, by virtio-mem."""
        return self.most_memory - self.memory

    @property
    def most_memory(self) -> Size:
        """The memory that the guest can have."""
        return self.memory_max or self.memory

    @property
    def most_cpus(self) -> int:
        """The vCPUs that can be in use."""
        return self.cpus_max or self.cpus

    def clock_at_start(self, now: float) -> float:
        """What the guest's clock shows when it starts at `now`; both in seconds since the epoch.

        Linux takes a real-time clock for UTC, so `localtime` is off by the zone.
        """
        if self.rtc == "utc":
            return now
        if self.rtc == "localtime":
            offset = datetime.datetime.fromtimestamp(now).astimezone().utcoffset()
            return now + (offset.total_seconds() if offset else 0.0)
        return datetime.datetime.fromisoformat(self.rtc).replace(tzinfo=datetime.UTC).timestamp()

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

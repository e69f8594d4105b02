"""From the configuration to the plan of a machine: pure, so that it can be printed and compared."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from vmrunner.config.cpu_values import Topology, percent_of, pins_of
from vmrunner.config.disk_values import image_format, throttle_limits
from vmrunner.config.memory_values import distances_of, nodes_of
from vmrunner.config.model import Config
from vmrunner.config.network_values import Forward, HostForward, bits_of
from vmrunner.config.units import Size
from vmrunner.guest.adjustment import Adjustment, CutOff
from vmrunner.guest.key import CREDENTIAL
from vmrunner.guest.preparation import Preparation
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.addresses import local_addresses
from vmrunner.host.qemu import Qemu
from vmrunner.image.manifest import Image
from vmrunner.machine.hardware.memory import MOVABLE_ARGUMENT
from vmrunner.machine.hardware.network import GUEST_SSH_PORT
from vmrunner.machine.plan import (
    IN_TAG,
    OUT_TAG,
    STORE_TAG,
    DiskOptions,
    ExtraDisk,
    KernelBoot,
    MachinePlan,
    Placement,
    RootDisk,
    Share,
)

GROW_ARGUMENT = "vmrunner.grow"
"""Tells the guest that its disk is larger than its root file system (vmrunner-growfs.service)."""

_REBOOT_ON_PANIC = "panic=-1"


@dataclass(frozen=True)
class Places:
    """Where on the host the machine's files are."""

    name: str
    overlay: Path
    inbox: Path
    out: Path
    serial_log: Path


def plan_machine(
    config: Config,
    *,
    image: Image,
    qemu: Qemu,
    accelerator: Accelerator,
    places: Places,
    authorized_key: str,
    store: Path | None = None,
    lives_long: bool = False,
) -> MachinePlan:
    """Everything about the machine, resolved. `store` is the Nix store of this host that its guest may see."""
    manifest = image.manifest
    disk_size = max(config.disk, Size(manifest.root_disk_size))
    return MachinePlan(
        name=places.name,
        qemu=qemu.path,
        machine_type=qemu.machine_type_named(config.machine_type),
        accelerator=accelerator.kind,
        cpu_model=accelerator.cpu_model,
        cpus=config.cpus,
        memory=config.memory,
        boot=_boot(config, image, grow=disk_size > manifest.root_disk_size),
        disk=RootDisk(places.overlay, image.root_disk, manifest.root_disk_format, Size(disk_size)),
        network=config.network,
        shares=(
            Share(IN_TAG, places.inbox, readonly=True),
            Share(OUT_TAG, places.out, readonly=False),
            *((Share(STORE_TAG, store, readonly=True),) if store else ()),
        ),
        credentials=((CREDENTIAL, authorized_key),),
        serial_log=places.serial_log,
        extra_arguments=config.qemu_args,
        cpus_max=config.cpus_max,
        cpu_topology=Topology.parse(config.cpu_topology) if config.cpu_topology else None,
        cpu_features=config.cpu_features,
        placement=placement_of(config),
        memory_max=config.memory_max,
        numa_nodes=nodes_of(config.numa_nodes),
        numa_distances=distances_of(config.numa_distances, len(config.numa_nodes)),
        hugepages=config.hugepages,
        prealloc=config.prealloc == "on",
        balloon=config.balloon == "on" or (config.balloon == "auto" and lives_long),
        disk_options=DiskOptions(
            config.disk_cache, config.disk_aio, config.disk_discard, iothread=config.disk_iothread == "on"
        ),
        disk_limits=tuple(sorted(throttle_limits(config.disk_limits).items())),
        extra_disks=extra_disks_of(config, places.overlay.parent),
        forwards=tuple(map(Forward.parse, config.forwards)),
        host_forwards=tuple(map(HostForward.parse, config.host_forwards)),
        dns=config.dns,
        host_access=config.host_access == "on",
        nics=config.nics,
        mac=config.mac,
        watchdog=None if config.watchdog == "off" else config.watchdog,
        rng=config.rng,
        rtc=config.rtc,
        rtc_drift=config.rtc_drift,
        may_break_booting=_is_emulated_with_a_defect(config, qemu, accelerator),
    )


def _is_emulated_with_a_defect(config: Config, qemu: Qemu, accelerator: Accelerator) -> bool:
    return accelerator.kind == "tcg" and config.most_cpus > 1 and not qemu.emulates_several_cpus


def extra_disks_of(config: Config, directory: Path) -> tuple[ExtraDisk, ...]:
    """The disks besides the root's, in the order in which the guest finds them; their files are in `directory`.

    A file's name tells what it was made from, so that a VM whose settings were changed does not take another's.
    """
    empty = [
        ExtraDisk(f"empty-{index}", directory / f"empty-{index}-{int(size)}.qcow2", size=size)
        for index, size in enumerate(config.empty_disks)
    ]
    overlays = [
        ExtraDisk(
            f"overlay-{index}", directory / f"overlay-{index}-{_digest(path)}.qcow2",
            backing_file=path, backing_format=image_format(path),
        )
        for index, path in enumerate(config.overlay_disks)
    ]  # fmt: skip
    readonly = [
        ExtraDisk(f"readonly-{index}", path, backing_format=image_format(path), readonly=True)
        for index, path in enumerate(config.readonly_disks)
    ]
    return (*empty, *overlays, *readonly)


def placement_of(config: Config) -> Placement:
    """How this host is to run the machine's threads."""
    quota = percent_of(config.cpu_quota) if config.cpu_quota else None
    return Placement(pins_of(config.cpu_pin), config.cpu_weight, quota, config.nice)


def adjustment_of(config: Config, plan: MachinePlan, *, rescan: bool) -> Adjustment:
    """What the guest itself has to do about the settings. `rescan`: it was restored from a template."""
    # Where more vCPUs are present than are to be used (see `machine.hardware.processor.smp`).
    spare = plan.accelerator == "tcg" and plan.most_cpus > plan.cpus
    shaped = config.net_delay > 0 or config.net_rate != "0"
    return Adjustment(
        rescan=rescan and bool(plan.balloon or plan.extra_disks or plan.nics > 1),
        cpus=plan.cpus if spare else None,
        modules=config.kernel_modules,
        sysctls=tuple(config.sysctls.items()),
        name_server=config.dns,
        cut_off=None if plan.host_access else _cut_off(plan),
        rate=bits_of(config.net_rate) if shaped else None,
        delay=float(config.net_delay) if shaped else None,
    )


def _cut_off(plan: MachinePlan) -> CutOff:
    """All of this host that the guest could reach, and the ports that this host reaches it by."""
    served = [("tcp", GUEST_SSH_PORT), *((one.protocol, one.guest_port) for one in plan.forwards)]
    return CutOff(tuple(dict.fromkeys(served)), local_addresses())


def can_be_templated(config: Config) -> bool:
    """Whether such a machine can be restored: a template's memory is one file, and huge pages are in none."""
    return config.hugepages == "off" and not config.numa_nodes


def _digest(path: Path) -> str:
    return hashlib.sha256(bytes(path)).hexdigest()[:8]


def _boot(config: Config, image: Image, *, grow: bool) -> KernelBoot:
    """The image's kernel and initrd, or others: another kernel without an initrd gets none, for modules would not fit."""
    initrd = config.initrd or (None if config.kernel else image.initrd)
    words = (
        image.manifest.kernel_command_line,
        _REBOOT_ON_PANIC,
        *((GROW_ARGUMENT,) if grow else ()),
        *((MOVABLE_ARGUMENT,) if config.memory_max else ()),
    )
    return KernelBoot(config.kernel or image.kernel, initrd, (*words, *config.kernel_args))


def preparation_of(config: Config) -> Preparation:
    """The names that the run asks for."""
    machine_id = {"shared": "", "random": secrets.token_hex(16)}.get(config.machine_id, config.machine_id)
    return Preparation(hostname=config.hostname or "", machine_id=machine_id)


def hint_for(config: Config) -> str | None:
    """What to do where the guest could not be prepared; None where its settings ask nothing of it."""
    asked = [
        name
        for name, value in (("kernel-modules", config.kernel_modules), ("sysctls", config.sysctls))
        if value
    ]
    return (
        f"does the guest's kernel have all that {' and '.join(f'`{name}`' for name in asked)} name?"
        if asked
        else None
    )

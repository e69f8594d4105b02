"""From the configuration to the plan of a machine: pure, so that it can be printed and compared."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.guest.key import CREDENTIAL
from vmrunner.guest.preparation import Preparation
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.facts import HostFacts
from vmrunner.host.qemu import Qemu
from vmrunner.image.manifest import Image
from vmrunner.machine.plan import IN_TAG, OUT_TAG, STORE_TAG, KernelBoot, MachinePlan, RootDisk, Share

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
) -> MachinePlan:
    """Everything about the machine, resolved. `store` is the Nix store of this host that its guest may see."""
    manifest = image.manifest
    disk_size = max(config.disk, Size(manifest.root_disk_size))
    grow = (GROW_ARGUMENT,) if disk_size > manifest.root_disk_size else ()
    return MachinePlan(
        name=places.name,
        qemu=qemu.path,
        machine_type=qemu.machine_type,
        accelerator=accelerator.kind,
        cpu_model=accelerator.cpu_model,
        cpus=config.cpus,
        memory=config.memory,
        boot=KernelBoot(
            kernel=image.kernel,
            initrd=image.initrd,
            command_line=(manifest.kernel_command_line, _REBOOT_ON_PANIC, *grow, *config.kernel_args),
        ),
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
    )


def preparation_of(config: Config) -> Preparation:
    """The names that the run asks for."""
    machine_id = {"shared": "", "random": secrets.token_hex(16)}.get(config.machine_id, config.machine_id)
    return Preparation(hostname=config.hostname or "", machine_id=machine_id)


def check_against_host(config: Config, host: HostFacts) -> None:
    """Refuse what this computer cannot give, before anything is started; both values are named. Raises ConfigError."""
    memory, cpus = config.memory * config.shards, config.cpus * config.shards
    together = f" for {config.shards} shards together" if config.shards > 1 else ""
    if memory > host.memory_available:
        raise ConfigError(
            f"`memory` is {config.memory}{f' ({Size(memory).for_people()}{together})' if together else ''}, but this"
            f" host has {Size(host.memory_available).for_people()} available"
            f" (of {Size(host.memory_total).for_people()})",
            hint=f"ask for less with `--memory`{' or `--shards`' if together else ''}, or free some",
        )
    if config.shards > 1 and cpus > host.cpus:
        raise ConfigError(
            f"`cpus` is {config.cpus}, which makes {cpus}{together}, but this host has {host.cpus}",
            hint="ask for fewer with `--cpus` or `--shards`",
        )

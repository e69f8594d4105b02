"""Refuse settings that do not fit together, or not this computer, before anything is started.

Each ConfigError names both values and the way out.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path

from vmrunner.config.cpu_values import Topology, format_cpu_list, pins_of
from vmrunner.config.disk_values import image_format
from vmrunner.config.model import Config
from vmrunner.config.network_values import Forward
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.host.facts import HostFacts, read_facts
from vmrunner.host.limits import HostLimits, read_limits
from vmrunner.run.memory_requirements import check_memory, check_reserved

MOST_EXTRA_DEVICES = 16
"""Slots of the machine's PCI bus (32) that are left for more disks and cards, and some to spare."""

_AIO_CACHES = ("none", "directsync")
_QCOW2_MAGIC = b"QFI\xfb"


def check_settings(config: Config) -> None:
    """All that can be refused before the machine is planned. Raises ConfigError."""
    check_together(config)
    check_against_host(config, read_facts())
    check_limits(config, read_limits())


def check_together(config: Config) -> None:
    """Refuse settings that contradict each other. Raises ConfigError."""
    _check_cpus(config)
    _check_network(config)
    _check_forwards(config)
    _check_disk_images(config)
    _check_device_count(config)
    _check_boot_files(config)
    check_memory(config)
    if config.disk_aio == "native" and config.disk_cache not in _AIO_CACHES:
        raise ConfigError(
            f"`disk-aio` is native, and `disk-cache` is {config.disk_cache}",
            hint="native needs `disk-cache` none or directsync; io_uring and threads go with any",
        )


def check_against_host(config: Config, host: HostFacts) -> None:
    """Refuse more memory or CPUs than this computer can give. Raises ConfigError."""
    memory, cpus = config.memory * config.shards, config.cpus * config.shards
    together = f" for {config.shards} shards together" if config.shards > 1 else ""
    if config.hugepages == "off" and memory > host.memory_available:
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


def check_limits(config: Config, host: HostLimits) -> None:
    """Refuse what this computer, or this user on it, cannot do with a machine's threads. Raises ConfigError."""
    check_pins(config, host)
    if config.nice < host.nice_floor:
        raise ConfigError(
            f"`nice` is {config.nice}, but this user can go down to {host.nice_floor} only",
            hint="take a higher value, or run as root",
        )
    shared = config.cpu_weight is not None or config.cpu_quota is not None
    if shared and (obstacle := host.cpu_share_obstacle()):
        name = "cpu-weight" if config.cpu_weight is not None else "cpu-quota"
        value = config.cpu_weight if config.cpu_weight is not None else config.cpu_quota
        raise ConfigError(f"`{name}` is {value}, but it cannot be set on this host", hint=obstacle)
    if config.disk_aio == "io_uring" and (obstacle := host.io_uring_obstacle()):
        raise ConfigError(f"`disk-aio` is io_uring, but {obstacle}", hint="take `disk-aio: threads`")
    if config.hugepages != "off":
        check_reserved(config, host.free_huge_pages(config.hugepages))


def check_pins(config: Config, host: HostLimits) -> None:
    """Refuse vCPUs that the machine has not, and CPUs that the host has not. Raises ConfigError."""
    most = config.most_cpus
    for vcpu, cpus in pins_of(config.cpu_pin):
        if vcpu >= most:
            raise ConfigError(
                f"`cpu-pin` names virtual CPU {vcpu}, but the machine has {most} (0 to {most - 1})",
                hint="leave it out, or give the machine more with `--cpus`",
            )
        missing = set(cpus) - set(host.cpus)
        if missing:
            raise ConfigError(
                f"`cpu-pin` names CPU {min(missing)}, but this host has {format_cpu_list(host.cpus)}",
                hint="name CPUs that are there, and that this process may use (taskset(1))",
            )


def _check_cpus(config: Config) -> None:
    most = config.most_cpus
    if most < config.cpus:
        raise ConfigError(
            f"`cpus-max` is {most}, which is less than `cpus`, {config.cpus}",
            hint="give `cpus-max` at least as many, or leave it out",
        )
    if config.cpu_topology and Topology.parse(config.cpu_topology).cpus != most:
        name = "cpus-max" if config.cpus_max else "cpus"
        raise ConfigError(
            f"`cpu-topology` {config.cpu_topology} makes {Topology.parse(config.cpu_topology).cpus} CPUs, and `{name}`"
            f" is {most}",
            hint="sockets x cores x threads must be just as many",
        )


def _check_boot_files(config: Config) -> None:
    for name, path in (("kernel", config.kernel), ("initrd", config.initrd)):
        if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            raise ConfigError(
                f"`{name}` is {path}, which is no file that can be read", hint="name one that is there"
            )


def _check_network(config: Config) -> None:
    if config.dns and config.network != "user":
        raise ConfigError(
            f"`dns` is {config.dns}, and `network` is {config.network}, in which no name server can be reached",
            hint="add `--network user`, or leave `dns` out",
        )
    if config.network == "none":
        for name, forwards in (("forwards", config.forwards), ("host-forwards", config.host_forwards)):
            if forwards:
                raise ConfigError(
                    f"`{name}` has {forwards[0]}, and `network` is none, in which the tests have no network card",
                    hint="take `network: restricted`, or leave the forwards out",
                )


def _check_disk_images(config: Config) -> None:
    """Refuse what is no file, or is not what its name says: a format is never guessed from what is in a file."""
    for name, paths in (("overlay-disks", config.overlay_disks), ("readonly-disks", config.readonly_disks)):
        for path in paths:
            is_qcow2 = _begins_like_qcow2(name, path)
            if is_qcow2 != (image_format(path) == "qcow2"):
                raise ConfigError(
                    f"`{name}` has {path}, which is {'' if is_qcow2 else 'no '}qcow2, and is taken for"
                    f" {image_format(path)} by its name",
                    hint="rename it: a qcow2 file to `.qcow2`, a raw image to `.img`; or see `qemu-img convert`",
                )


def _begins_like_qcow2(name: str, path: Path) -> bool:
    try:
        # To open a pipe would wait for somebody to write.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"`{name}` has {path}, which is no regular file", hint="name a disk image")
        with path.open("rb") as file:
            return file.read(len(_QCOW2_MAGIC)) == _QCOW2_MAGIC
    except OSError as error:
        raise ConfigError(
            f"`{name}` has {path}, which cannot be read: {error.strerror}", hint="name a disk image"
        ) from error


def _check_device_count(config: Config) -> None:
    disks = len(config.empty_disks) + len(config.overlay_disks) + len(config.readonly_disks)
    if disks + config.nics - 1 > MOST_EXTRA_DEVICES:
        raise ConfigError(
            f"there are {disks} disks besides the root's and `nics` is {config.nics}, and a machine has room for"
            f" {MOST_EXTRA_DEVICES} such disks and cards together",
            hint="leave some out",
        )


def _check_forwards(config: Config) -> None:
    forwards = [Forward.parse(text) for text in config.forwards]
    fixed = Counter((one.protocol, one.host_port) for one in forwards if one.host_port)
    for (protocol, port), times in fixed.items():
        if times > 1:
            raise ConfigError(
                f"`forwards` has {protocol} port {port} of this host {times} times",
                hint="leave all but one out",
            )
    if fixed and config.shards > 1:
        raise ConfigError(
            f"`forwards` takes a port of this host, and `shards` is {config.shards}: only one machine can have it",
            hint="forward port 0, which takes any that is free, or leave out `--shards`",
        )

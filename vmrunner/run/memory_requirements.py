"""Refuse settings of the memory that do not fit together, or not this computer.

Each ConfigError names both values and the way out.
"""

from __future__ import annotations

from vmrunner.config.cpu_values import format_cpu_list
from vmrunner.config.memory_values import nodes_of
from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.host.limits import HUGE_PAGE_BYTES
from vmrunner.machine.hardware.memory import BLOCK_BYTES


def check_memory(config: Config) -> None:
    """Refuse what contradicts itself. Raises ConfigError."""
    if config.memory_max is not None:
        _check_most(config, config.memory_max)
    if config.hugepages != "off":
        _check_huge_pages(config)
    _check_nodes(config)
    _check_start(config)


def check_reserved(config: Config, free: int) -> None:
    """Refuse more huge pages than are `free`. Raises ConfigError."""
    needed = config.memory // HUGE_PAGE_BYTES[config.hugepages] * config.shards
    if needed > free:
        kib = HUGE_PAGE_BYTES[config.hugepages] >> 10
        raise ConfigError(
            f"`memory` takes {needed} huge pages of {config.hugepages}, but {max(free, 0)} are reserved and free",
            hint=f"as root: echo {needed} >/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages",
        )


def _check_most(config: Config, most: Size) -> None:
    if most < config.memory:
        raise ConfigError(
            f"`memory-max` is {most}, which is less than `memory`, {config.memory}",
            hint="give `memory-max` at least as much, or leave it out",
        )
    if (most - config.memory) % BLOCK_BYTES:
        raise ConfigError(
            f"`memory-max` is {most} and `memory` {config.memory}: what is between them must be a multiple of"
            f" {Size(BLOCK_BYTES)}",
            hint="memory is added in blocks of that size",
        )
    if config.hugepages != "off":
        raise ConfigError(
            f"`memory-max` is {most}, and `hugepages` is {config.hugepages}: what is added later is of common pages",
            hint="leave one of the two out",
        )


def _check_huge_pages(config: Config) -> None:
    if config.memory % HUGE_PAGE_BYTES[config.hugepages]:
        raise ConfigError(
            f"`memory` is {config.memory}, which is no multiple of `hugepages`, {config.hugepages}",
            hint="take a multiple, or smaller pages",
        )
    for cpus, size in config.numa_nodes.items():
        if size % HUGE_PAGE_BYTES[config.hugepages]:
            raise ConfigError(
                f"`numa-nodes` gives {size} to {cpus}, which is no multiple of `hugepages`, {config.hugepages}",
                hint="take a multiple, or smaller pages",
            )


def _check_nodes(config: Config) -> None:
    nodes = nodes_of(config.numa_nodes)
    for pair in config.numa_distances:
        last = int(pair.partition("-")[2])
        if last >= len(nodes):
            raise ConfigError(
                f"`numa-distances` names node {last}, and `numa-nodes` has {len(nodes) or 'none'}",
                hint="nodes count from 0, in their order",
            )
    if not nodes:
        return
    together = Size(sum(node.memory for node in nodes))
    if together != config.memory:
        raise ConfigError(
            f"`numa-nodes` have {together} together, and `memory` is {config.memory}",
            hint="give the nodes just as much as there is",
        )
    most = config.most_cpus
    placed = sorted(cpu for node in nodes for cpu in node.cpus)
    if placed != list(range(most)):
        raise ConfigError(
            f"`numa-nodes` have the virtual CPUs {format_cpu_list(placed)}, and the machine has 0-{most - 1}",
            hint="each must be in one node",
        )


def _check_start(config: Config) -> None:
    if config.start != "restored":
        return
    for name, value in (("hugepages", config.hugepages), ("numa-nodes", len(config.numa_nodes))):
        if value not in ("off", 0):
            raise ConfigError(
                f"`start` is restored, and `{name}` is {value}: a template's memory is a file",
                hint="leave one of the two out",
            )

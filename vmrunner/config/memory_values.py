"""What NUMA nodes are written as."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vmrunner.config.cpu_values import parse_cpu_list
from vmrunner.config.units import Size

MOST_NODES = 64
"""More would be a slip."""
USUAL_DISTANCE = 20
"""What QEMU takes for two nodes of which nothing is said (ACPI's SLIT has 10 for a node and itself)."""

_PAIR = re.compile(r"(\d{1,2})-(\d{1,2})")


@dataclass(frozen=True)
class NumaNode:
    """A node: its vCPUs, and its part of the memory."""

    cpus: tuple[int, ...]
    memory: Size


def check_nodes(nodes: Mapping[str, Size]) -> Mapping[str, Size]:
    """The nodes as they are. Raises ValueError where two of them have the same vCPU, or there are too many."""
    if len(nodes) > MOST_NODES:
        raise ValueError(f"{len(nodes)} NUMA nodes (want {MOST_NODES} at most)")
    seen: set[int] = set()
    for text in nodes:
        cpus = parse_cpu_list(text)
        if twice := seen.intersection(cpus):
            raise ValueError(f"vCPU {min(twice)} is in two NUMA nodes")
        seen.update(cpus)
    return nodes


def node_pair(value: str) -> str:
    """Two nodes, such as `0-1`, the lower one first."""
    match = _PAIR.fullmatch(value.strip())
    if match is None or match[1] == match[2]:
        raise ValueError(f"not two NUMA nodes: {value!r} (want for example 0-1)")
    first, second = sorted((int(match[1]), int(match[2])))
    return f"{first}-{second}"


def nodes_of(nodes: Mapping[str, Size]) -> tuple[NumaNode, ...]:
    """The nodes in their order, which is that of their numbers."""
    return tuple(NumaNode(parse_cpu_list(text), size) for text, size in nodes.items())


def distances_of(distances: Mapping[str, int], nodes: int) -> tuple[tuple[int, int, int], ...]:
    """Every pair of nodes with its distance: QEMU wants all of them or none. Empty where nothing is said of any."""
    if not distances:
        return ()
    return tuple(
        (first, second, distances.get(f"{first}-{second}", USUAL_DISTANCE))
        for first in range(nodes)
        for second in range(first + 1, nodes)
    )

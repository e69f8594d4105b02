"""The memory: how much, of what pages, in which nodes, and whether it can be changed while the guest runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vmrunner.config import checks, memory_values
from vmrunner.config.option import Option, pairs_like
from vmrunner.config.settings.types import NO_ENTRIES, CpuList, ReadOnly, Settings, Switch
from vmrunner.config.units import Size


class MemorySettings(Settings):
    """The memory."""

    memory: Annotated[
        Size,
        AfterValidator(checks.between("128M", "64T")),
        Option("memory", "SIZE", "memory of the guest"),
    ] = Size.parse("2G")
    memory_max: Annotated[
        Annotated[Size, AfterValidator(checks.between("128M", "64T"))] | None,
        Option("memory", "SIZE", "up to how much memory `vmrunner tune` can go (virtio-mem); without it as much as there is at "
               "the start"),
    ] = None  # fmt: skip
    hugepages: Annotated[
        Literal["off", "2M", "1G"],
        Option("memory", "SIZE", "size of the huge pages that the memory is made of, which must be reserved on this host; "
               "such a machine boots, it is not restored"),
    ] = "off"  # fmt: skip
    prealloc: Annotated[
        Switch,
        Option("memory", "SWITCH", "take all of the memory from this host before the guest starts"),
    ] = "off"
    balloon: Annotated[
        Literal["auto", "on", "off"],
        Option("memory", "WHEN", "a memory balloon, which `vmrunner tune --memory` and `vmrunner stats` use: auto (in "
               "long-lived VMs), on or off"),
    ] = "auto"  # fmt: skip
    numa_nodes: Annotated[
        Mapping[CpuList, Annotated[Size, AfterValidator(checks.between("1M", "64T"))]],
        AfterValidator(memory_values.check_nodes),
        *ReadOnly,
        Option("memory", "VCPUS=SIZE", "a NUMA node of these virtual CPUs and so much of the memory; such a machine boots, it is "
               "not restored", split=shlex.split, pairs=pairs_like("VCPUS=SIZE", "0-1=1G")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip
    numa_distances: Annotated[
        Mapping[Annotated[str, AfterValidator(memory_values.node_pair)], Annotated[int, Field(ge=11, le=254)]],
        *ReadOnly,
        Option("memory", "NODE-NODE=NUMBER", "how far two NUMA nodes are apart, 11 to 254, where a node is 10 from itself; 20 "
               "where nothing is said", split=shlex.split, pairs=pairs_like("NODE-NODE=NUMBER", "0-1=30")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip

"""The memory: its backends, its NUMA nodes, and what can be added to it while the guest runs."""

from __future__ import annotations

from vmrunner.config.units import Size
from vmrunner.machine.hardware.words import memory_size, option
from vmrunner.machine.plan import MachinePlan

MEMORY_ID = "ram"
MORE_MEMORY_DEVICE = "more-memory0"
BLOCK_BYTES = 2 << 20
"""What virtio-mem gives and takes at a time: the size of a transparent huge page (QEMU 7.2, x86_64)."""
MOVABLE_ARGUMENT = "memhp_default_state=online_movable"
"""Tells a guest's kernel to put nothing into memory that comes later which would keep it from being given back."""

_MORE_MEMORY = "more-memory"


def memory_arguments(plan: MachinePlan) -> list[str]:
    """The guest's memory, always a backend of the same name: saved state refers to it by that.

    QEMU opens the file of a private mapping for writing too (7.2, measured), but does not write to it. Huge pages come
    from a memfd, which needs no mount.
    """
    size = f"size={memory_size(plan.memory)}"
    if plan.memory_max:
        size += f",maxmem={memory_size(plan.memory_max)}"
    if plan.numa_nodes:
        return ["-m", size, *_numa_arguments(plan)]
    return ["-m", size, "-object", _backend(plan, MEMORY_ID, plan.memory)]


def more_memory_arguments(plan: MachinePlan) -> list[str]:
    """The device that adds memory; none of it is there at the start, and none is reserved on this host."""
    if not plan.more_memory:
        return []
    return [
        "-object", option("memory-backend-ram", id=_MORE_MEMORY, size=f"{plan.more_memory}B", reserve="off"),
        "-device", option("virtio-mem-pci", id=MORE_MEMORY_DEVICE, memdev=_MORE_MEMORY, **{"requested-size": "0"}),
    ]  # fmt: skip


def _numa_arguments(plan: MachinePlan) -> list[str]:
    words: list[str] = []
    for number, node in enumerate(plan.numa_nodes):
        backend = f"{MEMORY_ID}-node{number}"
        cpus = "".join(f",cpus={cpu}" for cpu in node.cpus)
        words += [
            "-object", _backend(plan, backend, node.memory),
            "-numa", f"node,nodeid={number}{cpus},memdev={backend}",
        ]  # fmt: skip
    for first, second, distance in plan.numa_distances:
        words += ["-numa", f"dist,src={first},dst={second},val={distance}"]
    return words


def _backend(plan: MachinePlan, name: str, amount: Size) -> str:
    size, prealloc = memory_size(amount), {"prealloc": "on"} if plan.prealloc else {}
    if plan.hugepages != "off":
        return option(
            "memory-backend-memfd", id=name, size=size, share="off", hugetlb="on",
            hugetlbsize=plan.hugepages, **prealloc,
        )  # fmt: skip
    if plan.memory_file is None:
        return option("memory-backend-ram", id=name, size=size, **prealloc)
    share = "on" if plan.memory_file.shared else "off"
    path = {"mem-path": plan.memory_file.path}
    return option("memory-backend-file", id=name, size=size, share=share, **path, **prealloc)

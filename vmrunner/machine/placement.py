"""Where and how much this host runs a machine's threads: pinning, nice value, share of CPU time."""

from __future__ import annotations

from vmrunner.host.cpu_share import CpuShare, drop_group, set_cpu_share
from vmrunner.host.deadline import Deadline
from vmrunner.host.scheduling import set_affinity, set_nice
from vmrunner.machine.monitor import Monitor
from vmrunner.machine.plan import MachinePlan, Placement

_QMP_SECONDS = 20.0


def place(monitor: Monitor, pid: int, plan: MachinePlan) -> None:
    """Give a QEMU that has just started its place. Raises HostError where the kernel refuses."""
    placement = plan.placement
    if placement == Placement():
        return
    if placement.nice:
        set_nice(pid, placement.nice)
    if placement.weight is not None or placement.quota is not None:
        set_cpu_share(plan.name, pid, CpuShare(placement.weight, placement.quota))
    pin(monitor, placement.pins)


def pin(monitor: Monitor, pins: tuple[tuple[int, tuple[int, ...]], ...]) -> dict[int, tuple[int, ...]]:
    """Pin vCPUs that there are; returns on which host CPUs each may run then, as the kernel says."""
    threads = vcpu_threads(monitor) if pins else {}
    return {vcpu: set_affinity(threads[vcpu], cpus) for vcpu, cpus in pins if vcpu in threads}


def vcpu_threads(monitor: Monitor) -> dict[int, int]:
    """The thread id of each vCPU, by its number."""
    cpus = monitor.execute("query-cpus-fast", deadline=Deadline.after(_QMP_SECONDS))
    return {int(cpu["cpu-index"]): int(cpu["thread-id"]) for cpu in cpus}


def release(plan: MachinePlan) -> None:
    """Let go of what a machine that has ended had on this host."""
    if plan.placement.weight is not None or plan.placement.quota is not None:
        drop_group(plan.name)

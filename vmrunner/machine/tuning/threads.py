"""Where and how much this host runs the machine's threads, changed while it runs."""

from __future__ import annotations

from vmrunner.config.cpu_values import format_cpu_list
from vmrunner.host.cpu_share import CpuShare, read_cpu_share, set_cpu_share
from vmrunner.host.scheduling import read_affinity, read_nice, set_nice
from vmrunner.machine.machine import Machine
from vmrunner.machine.placement import pin, vcpu_threads
from vmrunner.machine.tuning.change import Change

_HOST = "host"


def set_pins(machine: Machine, pins: tuple[tuple[int, tuple[int, ...]], ...]) -> list[Change]:
    """Pin vCPUs; read back from the affinity of their threads."""
    threads = vcpu_threads(machine.monitor)
    before = {vcpu: read_affinity(threads[vcpu]) for vcpu, _ in pins if vcpu in threads}
    after = pin(machine.monitor, pins)
    wanted = dict(pins)
    return [
        Change(
            f"cpu-pin {vcpu}", format_cpu_list(before[vcpu]), format_cpu_list(after[vcpu]), _HOST,
            complete=after[vcpu] == wanted[vcpu],
        )
        for vcpu in after
    ]  # fmt: skip


def set_niceness(machine: Machine, wanted: int) -> Change:
    """Give all of QEMU's threads another nice value."""
    before = read_nice(machine.pid)
    after = set_nice(machine.pid, wanted)
    return Change("nice", str(before), str(after), _HOST, complete=after == wanted)


def set_share(machine: Machine, weight: int | None, quota: int | None) -> list[Change]:
    """Set weight and quota (percent of one CPU); None leaves one as it is."""
    name = machine.plan.name
    old = read_cpu_share(name, machine.pid)
    wanted = CpuShare(old.weight if weight is None else weight, old.quota if quota is None else quota)
    new = set_cpu_share(name, machine.pid, wanted)
    changes = []
    if weight is not None:
        changes.append(
            Change("cpu-weight", str(old.weight_or_default), str(new.weight_or_default), _HOST,
                   complete=new.weight_or_default == weight)
        )  # fmt: skip
    if quota is not None:
        changes.append(Change("cpu-quota", _percent(old), _percent(new), _HOST, complete=new.quota == quota))
    return changes


def _percent(share: CpuShare) -> str:
    return "none" if share.quota is None else f"{share.quota}%"

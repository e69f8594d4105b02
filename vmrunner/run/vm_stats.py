"""`vmrunner stats`: two looks at a running VM, and what happened between them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from vmrunner.errors import BootTimeout, VmBusy, VmrunnerError
from vmrunner.guest.ssh import ConnectionLost
from vmrunner.host.deadline import Deadline
from vmrunner.machine import registry
from vmrunner.machine.detached import machine_of
from vmrunner.machine.usage import Usage, read_host_usage, read_usage
from vmrunner.machine.vm_record import VmRecord

INTERVAL_SECONDS = 1.0

_MONITOR_SECONDS = 5.0
_LOGIN_SECONDS = 10.0


@dataclass(frozen=True)
class VmStats:
    """What a VM used between two looks. CPU is in percent of one of this host's CPUs, rates are a second's."""

    record: VmRecord
    usage: Usage
    uptime: float
    cpu_percent: float
    vcpu_percent: dict[int, float]
    disk_rates: dict[str, float] | None
    network_rates: dict[str, float] | None
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        usage = self.usage
        return {
            "name": self.record.name,
            "accelerator": self.record.plan.accelerator,
            "uptime_seconds": round(self.uptime, 1),
            "cpu_percent": round(self.cpu_percent, 1),
            "vcpu_percent": {str(vcpu): round(value, 1) for vcpu, value in self.vcpu_percent.items()},
            "host_memory": asdict(usage.memory),
            "guest_memory": None
            if usage.balloon is None
            else {"actual": usage.balloon, **(usage.guest_memory or {})},
            "disk": usage.disk and {**usage.disk, "per_second": _rounded(self.disk_rates)},
            "network": usage.network and {**usage.network, "per_second": _rounded(self.network_rates)},
            "remark": self.remark or None,
        }


def read_stats(name: str, *, deadline: Deadline) -> VmStats:
    """Look twice. While a test run has the VM's monitor, only what this host knows is told, and a remark says so.

    Raises UsageError where there is no such VM, VmNotRunning.
    """
    record = registry.find_running(name)
    assert record.process is not None
    try:
        with machine_of(record, deadline=deadline.within(_MONITOR_SECONDS)) as machine:
            remark = ""
            try:
                machine.guest.connect(deadline.within(_LOGIN_SECONDS), is_up=True)
            except (ConnectionLost, BootTimeout, VmrunnerError):
                remark = "the guest does not answer over SSH, so its network counters are missing"
            first = read_usage(machine, in_guest=not remark, deadline=deadline)
            deadline.pause(INTERVAL_SECONDS)
            second = read_usage(machine, in_guest=not remark, deadline=deadline)
    except VmBusy:
        remark = "another command, or a test run, has QEMU's monitor: only what this host knows is shown"
        first = read_host_usage(record.process.pid, {})
        deadline.pause(INTERVAL_SECONDS)
        second = read_host_usage(record.process.pid, {})
    return _between(record, first, second, remark)


def _between(record: VmRecord, first: Usage, second: Usage, remark: str) -> VmStats:
    seconds = second.at - first.at
    vcpus = {
        vcpu: 100 * (value - first.vcpu_seconds[vcpu]) / seconds
        for vcpu, value in second.vcpu_seconds.items()
        if vcpu in first.vcpu_seconds
    }
    return VmStats(
        record, second, time.time() - record.started_at, 100 * (second.cpu_seconds - first.cpu_seconds) / seconds,
        vcpus, _rates(first.disk, second.disk, seconds), _rates(first.network, second.network, seconds), remark,
    )  # fmt: skip


def _rates(
    first: dict[str, int] | None, second: dict[str, int] | None, seconds: float
) -> dict[str, float] | None:
    if first is None or second is None:
        return None
    return {name: (second[name] - first[name]) / seconds for name in second}


def _rounded(rates: dict[str, float] | None) -> dict[str, float] | None:
    return rates and {name: round(value, 1) for name, value in rates.items()}

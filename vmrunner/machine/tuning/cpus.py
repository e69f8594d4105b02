"""vCPUs in use: under KVM plugged in and out; emulated, where that kills QEMU, taken online and offline in the guest."""

from __future__ import annotations

from typing import Any

from vmrunner.errors import GuestError
from vmrunner.guest.adjustment import Adjustment, adjust
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline
from vmrunner.machine.machine import Machine
from vmrunner.machine.tuning.change import Change

_APPEARS_SECONDS = 30.0
_LETS_GO_SECONDS = 10.0
_POLL_SECONDS = 0.2


def set_cpus(machine: Machine, wanted: int, *, deadline: Deadline) -> Change:
    """Have the guest use `wanted` vCPUs, of those that the machine can have. Raises GuestError where it does not."""
    before = _online(machine.guest, deadline)
    hot_plugs = machine.plan.accelerator == "kvm"
    if hot_plugs:
        _plug(machine, wanted, deadline)
    _wait_for_present(machine.guest, wanted, deadline.within(_APPEARS_SECONDS))
    adjust(machine.guest, Adjustment(cpus=wanted), deadline=deadline)
    remark = _unplug(machine, wanted, deadline) if hot_plugs else ""
    after = _online(machine.guest, deadline)
    return Change("cpus", str(before), str(after), "guest", remark, complete=after == wanted)


def _online(guest: Guest, deadline: Deadline) -> int:
    """What `nproc` would say to a process that may run on all CPUs."""
    return _number(guest, "getconf _NPROCESSORS_ONLN", deadline)


def _wait_for_present(guest: Guest, wanted: int, deadline: Deadline) -> None:
    """A hot-plugged vCPU takes the guest a moment to notice."""
    while _number(guest, "set -- /sys/devices/system/cpu/cpu[0-9]*; echo $#", deadline) < wanted:
        if not deadline.pause(_POLL_SECONDS):
            raise GuestError(
                f"the guest has fewer than {wanted} CPUs present, and did not notice more in time"
            )


def _number(guest: Guest, command: str, deadline: Deadline) -> int:
    done = guest.execute(["/bin/sh", "-c", command], deadline=deadline)
    text = done.stdout.strip()
    if not text.isdecimal() or len(text) > 6:
        raise GuestError("the guest does not say how many CPUs it has", details=(done.stderr or text)[:500])
    return int(text)


def _slots(machine: Machine, deadline: Deadline) -> list[dict[str, Any]]:
    """The places for vCPUs in the order in which the guest numbers them: QEMU lists the last first."""
    slots: list[dict[str, Any]] = machine.monitor.execute("query-hotpluggable-cpus", deadline=deadline)
    return slots[::-1]


def _plug(machine: Machine, wanted: int, deadline: Deadline) -> None:
    """Add vCPUs until there are as many (QEMU's docs/system/cpu-hotplug.rst)."""
    slots = _slots(machine, deadline)
    present = sum("qom-path" in slot for slot in slots)
    for number, slot in enumerate([slot for slot in slots if "qom-path" not in slot], start=present):
        if number >= wanted:
            return
        machine.monitor.execute(
            "device_add", {"driver": slot["type"], "id": f"cpu{number}", **slot["props"]}, deadline=deadline
        )


def _unplug(machine: Machine, wanted: int, deadline: Deadline) -> str:
    """Take vCPUs out that the guest has taken offline, and wait for it to let go of them; what is left is a remark."""
    plugged = [slot["qom-path"] for slot in _slots(machine, deadline) if "qom-path" in slot]
    for path in reversed(plugged[wanted:]):
        machine.monitor.execute("device_del", {"id": path}, deadline=deadline)
    within = deadline.within(_LETS_GO_SECONDS)
    while True:
        left = sum("qom-path" in slot for slot in _slots(machine, deadline)) - wanted
        if left <= 0:
            return ""
        if not within.pause(_POLL_SECONDS):
            return f"{left} are offline and stay plugged in: the guest did not let go of them"

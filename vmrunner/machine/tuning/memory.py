"""The guest's memory: less of it by its balloon (what that takes, the guest cannot use), more of it by virtio-mem."""

from __future__ import annotations

import re
from typing import Any

from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.hardware.devices import BALLOON_ID
from vmrunner.machine.hardware.memory import BLOCK_BYTES, MORE_MEMORY_DEVICE
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import CommandRefused
from vmrunner.machine.tuning.change import Change

# 1.2 GB took an emulated guest 14 s (measured); one that has no more to give stands still.
_STANDSTILL_SECONDS = 10.0
_MOST_SECONDS = 120.0
_POLL_SECONDS = 0.2
_TOTAL = re.compile(r"^MemTotal:\s+(\d{1,15}) kB", re.MULTILINE)


def set_memory(machine: Machine, wanted: Size, *, deadline: Deadline) -> Change:
    """Leave the guest `wanted` bytes, and wait until it has followed or gives no more. Its guest is logged in to.

    Raises ConfigError where the machine cannot have so much or so little.
    """
    _check(machine, wanted)
    before = actual(machine, deadline)
    start = int(machine.plan.memory)
    if machine.plan.balloon:
        machine.monitor.execute("balloon", {"value": min(int(wanted), start)}, deadline=deadline)
    if machine.plan.more_memory:
        more = max(0, int(wanted) - start) // BLOCK_BYTES * BLOCK_BYTES
        _request_more(machine, more, deadline)
    after = _follow(machine, wanted, deadline.within(_MOST_SECONDS))
    complete = abs(after - wanted) < BLOCK_BYTES
    remark = "" if complete else f"the guest came no nearer to {wanted}: it uses the rest"
    if total := _total_of_guest(machine, deadline):
        remark = "; ".join(filter(None, (remark, f"the guest says MemTotal {Size(total).for_people()}")))
    return Change("memory", _shown(before), _shown(after), "QEMU", remark, complete=complete)


def actual(machine: Machine, deadline: Deadline) -> int:
    """The bytes that the guest has now. Raises CommandRefused where there is a balloon that does not work."""
    start = int(machine.plan.memory)
    if machine.plan.balloon:
        start = min(start, int(machine.monitor.execute("query-balloon", deadline=deadline)["actual"]))
    return start + (_more_now(machine, deadline) if machine.plan.more_memory else 0)


def _check(machine: Machine, wanted: Size) -> None:
    plan = machine.plan
    if wanted < plan.memory and not plan.balloon:
        raise ConfigError(
            f"`memory` is {wanted}, less than the {plan.memory} of the machine's start, and it has no balloon ({BALLOON_ID})",
            hint="it takes a restart with `balloon` on",
        )
    if wanted > plan.most_memory:
        raise ConfigError(
            f"`memory` is {wanted}, but the machine was started with {plan.most_memory}{' at most' if plan.memory_max else ''}",
            hint=f"more takes a restart: `--memory-max {wanted} --persist`, then `vmrunner stop` and `vmrunner up`",
        )


def _request_more(machine: Machine, size: int, deadline: Deadline) -> None:
    device = f"/machine/peripheral/{MORE_MEMORY_DEVICE}"
    request = {"path": device, "property": "requested-size", "value": size}
    machine.monitor.execute("qom-set", request, deadline=deadline)


def _more_now(machine: Machine, deadline: Deadline) -> int:
    """Bytes that the guest has plugged in (docs/interop, query-memory-devices)."""
    devices: list[dict[str, Any]] = machine.monitor.execute("query-memory-devices", deadline=deadline)
    return next(
        (int(one["data"]["size"]) for one in devices if one["data"].get("id") == MORE_MEMORY_DEVICE), 0
    )


def _follow(machine: Machine, wanted: int, deadline: Deadline) -> int:
    """What was read last: it is `wanted` but for less than a block, or stood still for long."""
    found, patience = actual(machine, deadline), Deadline.after(_STANDSTILL_SECONDS)
    while abs(found - wanted) >= BLOCK_BYTES and not patience.passed and deadline.pause(_POLL_SECONDS):
        try:
            now = actual(machine, deadline)
        except CommandRefused:
            break
        if now != found:
            found, patience = now, Deadline.after(_STANDSTILL_SECONDS)
    return found


def _total_of_guest(machine: Machine, deadline: Deadline) -> int | None:
    match = _TOTAL.search(machine.guest.execute(["cat", "/proc/meminfo"], deadline=deadline).stdout)
    return int(match[1]) << 10 if match else None


def _shown(size: int) -> str:
    return str(Size(size)) if size % (1 << 20) == 0 else Size(size).for_people()

"""The guest's memory, by its balloon: what that takes, the guest cannot use."""

from __future__ import annotations

from vmrunner.config.units import Size
from vmrunner.errors import ConfigError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.hardware.devices import BALLOON_ID
from vmrunner.machine.machine import Machine
from vmrunner.machine.monitor import CommandRefused
from vmrunner.machine.tuning.change import Change

# 1.2 GB took an emulated guest 14 s (measured); one that has no more to give stands still.
_STANDSTILL_SECONDS = 10.0
_MOST_SECONDS = 120.0
_POLL_SECONDS = 0.2
_PAGE = 4096


def set_memory(machine: Machine, wanted: Size, *, deadline: Deadline) -> Change:
    """Leave the guest `wanted` bytes, and wait until it has followed or gives no more.

    Raises ConfigError where the machine has not so much, or has no balloon.
    """
    if not machine.plan.balloon:
        raise ConfigError(
            f"`memory` cannot be changed: the machine has no balloon ({BALLOON_ID})",
            hint="it takes a restart with `balloon` on",
        )
    if wanted > machine.plan.memory:
        raise ConfigError(
            f"`memory` is {wanted}, but the machine was started with {machine.plan.memory}",
            hint="more takes a restart: add `--persist`, then `vmrunner stop` and `vmrunner up`",
        )
    before = actual(machine, deadline)
    machine.monitor.execute("balloon", {"value": int(wanted)}, deadline=deadline)
    after = _follow(machine, wanted, deadline.within(_MOST_SECONDS))
    complete = abs(after - wanted) < _PAGE
    remark = "" if complete else f"the guest came no nearer to {wanted}: it uses the rest"
    return Change("memory", _shown(before), _shown(after), "QEMU", remark, complete=complete)


def actual(machine: Machine, deadline: Deadline) -> int:
    """The bytes that the guest has now. Raises CommandRefused where there is no balloon that works."""
    return int(machine.monitor.execute("query-balloon", deadline=deadline)["actual"])


def _follow(machine: Machine, wanted: int, deadline: Deadline) -> int:
    found, patience = actual(machine, deadline), Deadline.after(_STANDSTILL_SECONDS)
    while abs(found - wanted) >= _PAGE and not patience.passed and deadline.pause(_POLL_SECONDS):
        try:
            now = actual(machine, deadline)
        except CommandRefused:
            break
        if now != found:
            found, patience = now, Deadline.after(_STANDSTILL_SECONDS)
    return found


def _shown(size: int) -> str:
    return str(Size(size)) if size % (1 << 20) == 0 else Size(size).for_people()

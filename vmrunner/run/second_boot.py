"""Boot once more where the first boot broke down over a known defect of QEMU, and nothing was lost by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from vmrunner.errors import BootCrashed, VmrunnerError
from vmrunner.events import Emit, Note
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import SEVERAL_CPUS_DEFECT
from vmrunner.machine.plan import MachinePlan

log = logging.getLogger(__name__)

Booted = TypeVar("Booted")


def boot_reliably(
    plan: MachinePlan,
    boot: Callable[[], Booted],
    *,
    emit: Emit,
    deadline: Deadline,
    also: tuple[type[VmrunnerError], ...] = (),
) -> Booted:
    """What `boot` returns, which starts the machine of that plan and leaves nothing running where it fails.

    A second time it is called only with a QEMU that is known to break (`MachinePlan.may_break_booting`): with any other, a
    kernel that panics while it boots will do so again. `also` names errors that such a break shows itself by where more than
    a boot is done. Raises what `boot` does.
    """
    broken: tuple[type[VmrunnerError], ...] = (BootCrashed, *also)
    try:
        return boot()
    except broken as error:
        if not plan.may_break_booting or deadline.passed:
            raise
        log.debug("%s", error.details)
        emit(Note(f"{error.message}, and it is started once more: {SEVERAL_CPUS_DEFECT}", "warning"))
    return boot()

"""The QEMU of this computer that runs a machine, and the accelerator it runs it with."""

from __future__ import annotations

from vmrunner.config.model import Config
from vmrunner.events import Emit
from vmrunner.host.accelerator import Accelerator, choose_accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import Qemu, find_qemu
from vmrunner.run.machine_type import check_machine_type


def choose_emulator(config: Config, *, emit: Emit, deadline: Deadline) -> tuple[Qemu, Accelerator]:
    """Find both, and have QEMU asked for the machine type where one was named.

    Raises HostError where there is none that works, ConfigError where this QEMU has no such machine.
    """
    qemu = find_qemu()
    accelerator = choose_accelerator(config.accel, config.cpu_model, qemu=qemu, emit=emit, deadline=deadline)
    check_machine_type(config, qemu, accelerator, emit=emit, deadline=deadline)
    return qemu, accelerator

"""Refuse a machine type that this QEMU has not, or that cannot do what the other settings ask of it."""

from __future__ import annotations

import difflib

from vmrunner.config.model import Config
from vmrunner.errors import ConfigError
from vmrunner.events import Emit, Note
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.machine_types import MachineType, read_machine_types
from vmrunner.host.qemu import Qemu


def check_machine_type(
    config: Config, qemu: Qemu, accelerator: Accelerator, *, emit: Emit, deadline: Deadline
) -> None:
    """Ask QEMU where a type was named; the newest q35 is known to do. Raises ConfigError."""
    if config.machine_type == "auto":
        return
    name = qemu.machine_type_named(config.machine_type)
    types = read_machine_types(qemu, deadline=deadline)
    if name not in types:
        near = difflib.get_close_matches(name, types, n=3)
        raise ConfigError(
            f"`machine-type` is {config.machine_type}, which QEMU {qemu.version} has not",
            hint=f"it has {', '.join(near)}; see `{qemu.path.name} -machine help`",
        )
    if types[name].deprecated:
        emit(Note(f"the machine type {name} is deprecated in QEMU {qemu.version}", "warning"))
    check_cpus(config, types[name], accelerator)


def check_cpus(config: Config, machine: MachineType, accelerator: Accelerator) -> None:
    """Refuse more CPUs than the machine can have, or that are to be plugged in where that cannot be. Raises ConfigError."""
    most = config.most_cpus
    if most > machine.most_cpus:
        raise ConfigError(
            f"`{'cpus-max' if config.cpus_max else 'cpus'}` is {most}, and `machine-type` {machine.name} has"
            f" {machine.most_cpus} at most",
            hint="ask for fewer, or take `machine-type: q35`",
        )
    # Emulated, all CPUs are there from the start.
    if most > config.cpus and accelerator.kind == "kvm" and not machine.hot_pluggable_cpus:
        raise ConfigError(
            f"`cpus-max` is {most} and `cpus` {config.cpus}, but nothing can be plugged into `machine-type` {machine.name}",
            hint="take `machine-type: q35`, or leave `cpus-max` out",
        )

"""The CPUs: what the guest sees of them, and how much of this host they get."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from vmrunner.config import checks, cpu_values
from vmrunner.config.option import Option, pairs_like
from vmrunner.config.settings.types import NO_ENTRIES, CpuList, ReadOnly, Settings

CpuModel = Annotated[str, AfterValidator(checks.cpu_model)]


class CpuSettings(Settings):
    """The CPUs."""

    # Without an IOMMU that remaps interrupts, an x86 guest has 8-bit APIC ids, of which one is broadcast.
    cpus: Annotated[
        int,
        Field(ge=1, le=255),
        Option("cpu", "NUMBER", "virtual CPUs"),
    ] = 2
    cpus_max: Annotated[
        Annotated[int, Field(ge=1, le=255)] | None,
        Option(
            "cpu",
            "NUMBER",
            "up to how many virtual CPUs `vmrunner tune` can go; without it as many as there are",
        ),
    ] = None
    cpu_topology: Annotated[
        Annotated[str, AfterValidator(cpu_values.topology)] | None,
        Option("cpu", "SxCxT", "sockets x cores of each x threads of each, together as many as there are CPUs at most; "
               "without one QEMU chooses"),
    ] = None  # fmt: skip
    cpu_model: Annotated[
        CpuModel,
        Option(
            "cpu",
            "MODEL",
            "CPU model as QEMU's -cpu takes it; auto takes what works with the accelerator",
        ),
    ] = "auto"
    cpu_features: Annotated[
        tuple[Annotated[str, AfterValidator(cpu_values.feature)], ...],
        Option("cpu", "FEATURE", "a property of the CPU model, such as avx2=off"),
    ] = ()
    cpu_pin: Annotated[
        Mapping[CpuList, CpuList],
        AfterValidator(cpu_values.check_pins),
        *ReadOnly,
        Option("cpu", "VCPUS=CPUS", "on which of this host's CPUs virtual CPUs run", split=shlex.split,
               pairs=pairs_like("VCPUS=CPUS", "0=2 or 0-3=4-7")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip
    cpu_weight: Annotated[
        Annotated[int, Field(ge=1, le=10000)] | None,
        Option(
            "cpu", "NUMBER", "share of this host's CPU time when others want it too; everybody else has 100"
        ),
    ] = None
    cpu_quota: Annotated[
        Annotated[str, AfterValidator(cpu_values.quota)] | None,
        Option(
            "cpu", "PERCENT", "CPU time that the machine gets at most, in percent of one of this host's CPUs"
        ),
    ] = None
    nice: Annotated[
        int,
        Field(ge=-20, le=19),
        Option("cpu", "NUMBER", "nice value of the machine's threads, -20 (served first) to 19"),
    ] = 0

    @property
    def most_cpus(self) -> int:
        """The virtual CPUs that can be in use."""
        return self.cpus_max or self.cpus

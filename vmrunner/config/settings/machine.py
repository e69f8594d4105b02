"""The machine as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from vmrunner.config import checks
from vmrunner.config.option import Option
from vmrunner.config.settings.types import Settings


class MachineSettings(Settings):
    """The machine."""

    size: Annotated[
        str | None,
        Option("machine", "NAME", "CPUs, memory and disk by one name, which settings of their own are stronger than: small "
               "(1, 1G, 8G), medium (2, 2G, 8G), large (4, 8G, 32G), host (all CPUs, half of the memory), or one of `sizes` "
               "in vmrunner.yaml"),
    ] = None  # fmt: skip
    machine_type: Annotated[
        Annotated[str, AfterValidator(checks.machine_type)],
        Option("machine", "TYPE", "QEMU's machine type: auto (the newest q35), q35, pc, or one with its version such as "
               "pc-q35-7.1"),
    ] = "auto"  # fmt: skip
    accel: Annotated[
        Literal["auto", "kvm", "tcg"],
        Option(
            "machine", "ACCEL", "accelerator: auto (KVM where it is proved to work, else TCG), kvm or tcg"
        ),
    ] = "auto"

"""The machine as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from vmrunner.config.option import Option
from vmrunner.config.settings.types import Settings


class MachineSettings(Settings):
    """The machine."""

    accel: Annotated[
        Literal["auto", "kvm", "tcg"],
        Option(
            "machine", "ACCEL", "accelerator: auto (KVM where it is proved to work, else TCG), kvm or tcg"
        ),
    ] = "auto"

"""The memory: how much, of what pages, and whether it can be changed while the guest runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from vmrunner.config import checks
from vmrunner.config.option import Option
from vmrunner.config.settings.types import Settings, Switch
from vmrunner.config.units import Size


class MemorySettings(Settings):
    """The memory."""

    memory: Annotated[
        Size,
        AfterValidator(checks.between("128M", "64T")),
        Option("memory", "SIZE", "memory of the guest"),
    ] = Size.parse("2G")
    hugepages: Annotated[
        Literal["off", "2M", "1G"],
        Option("memory", "SIZE", "size of the huge pages that the memory is made of, which must be reserved on this host; "
               "such a machine boots, it is not restored"),
    ] = "off"  # fmt: skip
    prealloc: Annotated[
        Switch,
        Option("memory", "SWITCH", "take all of the memory from this host before the guest starts"),
    ] = "off"
    balloon: Annotated[
        Literal["auto", "on", "off"],
        Option("memory", "WHEN", "a memory balloon, which `vmrunner tune --memory` and `vmrunner stats` use: auto (in "
               "long-lived VMs), on or off"),
    ] = "auto"  # fmt: skip

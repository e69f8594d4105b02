"""Devices besides disk and network card."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from vmrunner.config import checks
from vmrunner.config.option import Option
from vmrunner.config.settings.types import Argument, Settings


class DeviceSettings(Settings):
    """Other devices."""

    watchdog: Annotated[
        Literal["off", "reset", "shutdown", "poweroff", "pause", "inject-nmi", "none"],
        Option("devices", "ACTION", "a watchdog (i6300esb), and what happens when it is not fed: reset, shutdown, poweroff, "
               "pause, inject-nmi, none; off is no watchdog"),
    ] = "off"  # fmt: skip
    rng: Annotated[
        Literal["builtin", "urandom", "off"],
        Option("devices", "SOURCE", "where the guest's random number generator has its numbers: builtin (QEMU asks the "
               "kernel), urandom (/dev/urandom of this host) or off (it has none)"),
    ] = "builtin"  # fmt: skip
    rtc: Annotated[
        Annotated[str, AfterValidator(checks.rtc)],
        Option("devices", "TIME", "what the guest's clock shows when it starts: utc (now), localtime, or a time such as "
               "2030-01-01T00:00:00"),
    ] = "utc"  # fmt: skip
    rtc_drift: Annotated[
        Literal["none", "slew"],
        Option(
            "devices",
            "HOW",
            "whether ticks of the real-time clock that the guest missed are made up for (slew)",
        ),
    ] = "none"
    qemu_args: Annotated[
        tuple[Argument, ...],
        Option("devices", "ARG", "an argument to add to QEMU's own; the last resort"),
    ] = ()

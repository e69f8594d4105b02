"""The network: what the guest reaches, and what reaches it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from vmrunner.config import checks, network_values
from vmrunner.config.option import Option
from vmrunner.config.settings.types import Settings
from vmrunner.config.units import Duration


class NetworkSettings(Settings):
    """The network."""

    network: Annotated[
        Literal["restricted", "user"],
        Option("network", "MODE", "what the guest reaches: nothing outside itself (restricted) or what this host "
               "reaches (user)"),
    ] = "restricted"  # fmt: skip
    forwards: Annotated[
        tuple[Annotated[str, AfterValidator(network_values.forward)], ...],
        Option("network", "HOSTPORT:GUESTPORT", "a port of this host that leads into the guest: "
               "[ADDRESS:]HOSTPORT:GUESTPORT[/udp], without an address on loopback, port 0 for any that is free"),
    ] = ()  # fmt: skip
    mac: Annotated[
        Annotated[str, AfterValidator(network_values.mac)] | None,
        Option("network", "ADDRESS", "MAC address of the network card; without one it has QEMU's"),
    ] = None
    net_rate: Annotated[
        Annotated[str, AfterValidator(network_values.rate)],
        Option("network", "RATE", "what the guest can send, in bits per second as tc(8) has it (10mbit); 0 for no limit. "
               "SSH of this host is exempt"),
    ] = "0"  # fmt: skip
    net_delay: Annotated[
        Duration,
        AfterValidator(checks.at_most("10s")),
        Option(
            "network", "TIME", "delay of all that the guest sends, such as 100ms; SSH of this host is exempt"
        ),
    ] = Duration(0)

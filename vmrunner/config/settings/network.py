"""The network: what the guest reaches, and what reaches it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vmrunner.config import checks, network_values
from vmrunner.config.option import Option
from vmrunner.config.settings.types import Settings, Switch
from vmrunner.config.units import Duration


class NetworkSettings(Settings):
    """The network."""

    network: Annotated[
        Literal["none", "restricted", "user"],
        Option("network", "MODE", "what the tests reach: not even a network card (none), nothing outside the guest "
               "(restricted) or what this host reaches (user)"),
    ] = "restricted"  # fmt: skip
    forwards: Annotated[
        tuple[Annotated[str, AfterValidator(network_values.forward)], ...],
        Option("network", "HOSTPORT:GUESTPORT", "a port of this host that leads into the guest: "
               "[ADDRESS:]HOSTPORT:GUESTPORT[/udp], without an address on loopback, port 0 for any that is free"),
    ] = ()  # fmt: skip
    host_forwards: Annotated[
        tuple[Annotated[str, AfterValidator(network_values.host_forward)], ...],
        Option("network", "GUESTPORT:HOSTPORT", "a port of the guest's loopback that leads to this host: "
               "GUESTPORT:[ADDRESS:]HOSTPORT, while a test run, `vmrunner ssh` or `exec` lasts"),
    ] = ()  # fmt: skip
    dns: Annotated[
        Annotated[str, AfterValidator(network_values.name_server)] | None,
        Option("network", "ADDRESS", "name server of the guest in the network `user`; without one it asks this host's"),
    ] = None  # fmt: skip
    host_access: Annotated[
        Switch,
        Option("network", "SWITCH", "whether the guest reaches services of this host in the network `user`; root in the "
               "guest can undo it"),
    ] = "on"  # fmt: skip
    nics: Annotated[
        int,
        Field(ge=1, le=8),
        Option("network", "NUMBER", "network cards; those besides the first are on networks of their own, which lead "
               "nowhere, and have no address"),
    ] = 1  # fmt: skip
    mac: Annotated[
        Annotated[str, AfterValidator(network_values.mac)] | None,
        Option("network", "ADDRESS", "MAC address of the network card; without one it has QEMU's"),
    ] = None
    net_rate: Annotated[
        Annotated[str, AfterValidator(network_values.rate)],
        Option("network", "RATE", "what the guest can send, and what it can receive, in bits per second as tc(8) has it (10mbit); 0 for no limit. "
               "SSH of this host is exempt"),
    ] = "0"  # fmt: skip
    net_delay: Annotated[
        Duration,
        AfterValidator(checks.at_most("10s")),
        Option(
            "network", "TIME", "delay of all that the guest sends, such as 100ms; SSH of this host is exempt"
        ),
    ] = Duration(0)

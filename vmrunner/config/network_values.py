"""What network settings are written as: forwards, rates, NICs, MAC addresses."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self

_FORWARD = re.compile(
    r"(?:(?P<address>[0-9.]+):)?(?P<host>\d{1,5}):(?P<guest>\d{1,5})(?:/(?P<protocol>tcp|udp))?"
)
_HOST_FORWARD = re.compile(
    r"(?P<guest>\d{1,5}):(?:(?P<address>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):)?(?P<host>\d{1,5})"
)
# tc(8): bits per second, powers of 1000.
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([kmg]?)bit", re.IGNORECASE)
_RATE_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_LEAST_RATE = 8_000
_MOST_RATE = 10**11
# Locally administered or not, but not a group's: the lowest bit of the first byte is 0.
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")
_LAST_PORT = 65535


@dataclass(frozen=True)
class Forward:
    """A port of this host that leads into the guest, written `8080:80`, `127.0.0.1:8080:80` or `5353:53/udp`.

    Host port 0 lets QEMU choose.
    """

    address: str
    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one; without an address it is loopback. Raises ValueError with an example."""
        match = _FORWARD.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"not a forward: {text!r} (want [ADDRESS:]HOSTPORT:GUESTPORT[/udp], for example 8080:80)"
            )
        address = match["address"] or "127.0.0.1"
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            raise ValueError(f"not an IPv4 address: {address!r} in the forward {text!r}") from None
        host, guest = _port(match["host"], least=0), _port(match["guest"])
        return cls(address, host, guest, "udp" if match["protocol"] == "udp" else "tcp")

    @property
    def arrow(self) -> str:
        """For people: `127.0.0.1:8080->80/tcp`."""
        return f"{self.address}:{self.host_port}->{self.guest_port}/{self.protocol}"

    def __str__(self) -> str:
        address = "" if self.address == "127.0.0.1" else f"{self.address}:"
        return f"{address}{self.host_port}:{self.guest_port}{'/udp' if self.protocol == 'udp' else ''}"


@dataclass(frozen=True)
class HostForward:
    """A port of the guest's loopback that leads to this host or beyond, written `5432:5432` or `5432:db.lan:5432`."""

    guest_port: int
    address: str
    host_port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one; without an address it is this host's loopback. Raises ValueError with an example."""
        match = _HOST_FORWARD.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"not a forward: {text!r} (want GUESTPORT:[ADDRESS:]HOSTPORT, for example 5432:5432)"
            )
        return cls(_port(match["guest"]), match["address"] or "127.0.0.1", _port(match["host"]))

    def __str__(self) -> str:
        address = "" if self.address == "127.0.0.1" else f"{self.address}:"
        return f"{self.guest_port}:{address}{self.host_port}"


def host_forward(value: str) -> str:
    """A forward to this host in its shortest spelling."""
    return str(HostForward.parse(value))


def name_server(value: str) -> str:
    """The IPv4 address of a name server: QEMU's user network has no IPv6 here."""
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError(f"not an IPv4 address: {value!r} (want for example 192.0.2.53)") from None


def forward(value: str) -> str:
    """A forward in its shortest spelling."""
    return str(Forward.parse(value))


def mac(value: str) -> str:
    """The MAC address of one card, in lower case."""
    address = value.strip().lower()
    if not _MAC.fullmatch(address):
        raise ValueError(f"not the MAC address of a card: {value!r} (want for example 52:54:00:12:34:56)")
    return address


def rate(value: str) -> str:
    """A rate as tc(8) writes it, such as `10mbit`; `0` is no limit."""
    text = value.strip().lower()
    if text in {"0", "unlimited"}:
        return "0"
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"not a rate: {value!r} (want bits per second, for example 512kbit or 10mbit; 0 for no limit)"
        )
    if not _LEAST_RATE <= bits_of(text) <= _MOST_RATE:
        raise ValueError(f"impossible rate: {value!r} (want 8kbit to 100gbit)")
    return text


def bits_of(text: str) -> int:
    """The bits per second of a checked `rate`."""
    match = _RATE.fullmatch(text)
    return int(Fraction(match[1]) * _RATE_FACTORS[match[2].lower()]) if match else 0


def format_rate(bits: int) -> str:
    """Bits per second in the shortest spelling that `rate` reads back."""
    for unit in ("g", "m", "k"):
        if bits and not bits % _RATE_FACTORS[unit]:
            return f"{bits // _RATE_FACTORS[unit]}{unit}bit"
    return f"{bits}bit" if bits else "0"


def _port(text: str, *, least: int = 1) -> int:
    port = int(text)
    if not least <= port <= _LAST_PORT:
        raise ValueError(f"not a port: {text} (want {least} to {_LAST_PORT})")
    return port

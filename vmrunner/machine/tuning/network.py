"""The network card: its link, the rate of what the guest sends and receives, and the delay of what it sends."""

from __future__ import annotations

import re
import secrets
from typing import Literal

from vmrunner.config.network_values import format_rate
from vmrunner.config.units import Duration
from vmrunner.errors import GuestError
from vmrunner.guest.adjustment import Adjustment, adjust
from vmrunner.host.deadline import Deadline
from vmrunner.host.log_end import read_end
from vmrunner.machine.hardware.network import NIC_ID
from vmrunner.machine.machine import Machine
from vmrunner.machine.tuning.change import Change

Link = Literal["up", "down"]

_SHOW = "tc qdisc show dev eth0 && { [ ! -e /sys/class/net/ifb0 ] || tc qdisc show dev ifb0; }"
_RATE = re.compile(r"rate (\d+)([KMG]?)bit")
_DELAY = re.compile(r"delay (\d+(?:\.\d+)?)(us|ms|s)\b")
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_CARRIER = "/sys/class/net/eth0/carrier"
# Without a link nobody can log in and look; so the guest looks itself, and says it on its console.
_WATCH = """(for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  read -r carrier <{carrier}; [ "$carrier" != 0 ] || break; sleep 0.5
done; echo "{word}=$carrier" >/dev/ttyS0) </dev/null >/dev/null 2>&1 &"""
_LINK_SECONDS = 15.0
_POLL_SECONDS = 0.1
_SERIAL_BYTES = 4096


def set_link(machine: Machine, link: Link, *, deadline: Deadline) -> Change:
    """Plug the cable in or pull it, and wait until the guest sees that. Raises GuestError where it does not."""
    up = link == "up"
    if up:
        machine.monitor.execute("set_link", {"name": NIC_ID, "up": True}, deadline=deadline)
        machine.guest.connect(deadline, is_up=True)
        seen = machine.guest.execute(["cat", _CARRIER], deadline=deadline).stdout.strip()
        return Change("link", "", "up" if seen == "1" else "down", "guest", complete=seen == "1")
    machine.guest.connect(deadline, is_up=True)
    word = f"vmrunner-link-{secrets.token_hex(4)}"
    watch = _WATCH.format(carrier=_CARRIER, word=word)
    machine.guest.execute(["/bin/sh", "-c", watch], deadline=deadline)
    machine.guest.disconnect()
    machine.monitor.execute("set_link", {"name": NIC_ID, "up": False}, deadline=deadline)
    seen = _seen_on_console(machine, word, deadline.within(_LINK_SECONDS))
    return Change(
        "link", "up", "down" if seen == "0" else "up", "guest",
        "SSH is cut off too; `--link up` brings it back", complete=seen == "0",
    )  # fmt: skip


def set_shape(machine: Machine, rate: int | None, delay: float | None, *, deadline: Deadline) -> list[Change]:
    """Set the rate (bits per second, each way) and the delay (seconds, of what is sent); None leaves one as it is, 0 is none."""
    old_rate, old_delay = read_shape(machine, deadline)
    wanted_rate = old_rate if rate is None else rate
    wanted_delay = old_delay if delay is None else delay
    adjust(machine.guest, Adjustment(rate=wanted_rate, delay=wanted_delay), deadline=deadline)
    new_rate, new_delay = read_shape(machine, deadline)
    changes = []
    if rate is not None:
        changes.append(
            Change(
                "net-rate", format_rate(old_rate), format_rate(new_rate), "guest", complete=new_rate == rate
            )
        )
    if delay is not None:
        same = abs(new_delay - delay) < 1e-5
        changes.append(Change("net-delay", _time(old_delay), _time(new_delay), "guest", complete=same))
    return changes


def read_shape(machine: Machine, deadline: Deadline) -> tuple[int, float]:
    """Rate and delay in force, 0 for none, as tc(8) in the guest says.

    Raises GuestError where it does not, or where what comes in has another rate than what goes out.
    """
    done = machine.guest.execute(["/bin/sh", "-c", _SHOW], deadline=deadline)
    if done.code:
        raise GuestError(
            "the guest does not say how its network is shaped", details=done.stderr.strip() or None
        )
    delay = _DELAY.search(done.stdout)
    rates = {int(number) * _FACTORS[factor] for number, factor in _RATE.findall(done.stdout)}
    if len(rates) > 1:
        raise GuestError(
            "the guest holds what it sends to another rate than what it receives", details=done.stdout
        )
    return next(iter(rates), 0), float(delay[1]) * _SECONDS[delay[2]] if delay else 0.0


def _seen_on_console(machine: Machine, word: str, deadline: Deadline) -> str:
    while True:
        match = re.search(rf"{word}=([01])", read_end(machine.plan.serial_log, size=_SERIAL_BYTES))
        if match:
            return match[1]
        if not deadline.pause(_POLL_SECONDS):
            raise GuestError("the link is down, but the guest did not say on its console that it has noticed")


def _time(seconds: float) -> str:
    return f"{seconds * 1000:g}ms" if seconds < 1 else str(Duration(seconds))

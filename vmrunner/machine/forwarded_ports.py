"""The ports of this host that lead into a running machine, as QEMU has them: it chooses those that were left open."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vmrunner.config.network_values import Forward
from vmrunner.errors import HostError
from vmrunner.events import Emit, Note
from vmrunner.host.deadline import Deadline
from vmrunner.machine.hardware.network import GUEST_SSH_PORT, NETDEV_ID
from vmrunner.machine.monitor import Monitor

_ANY: Final = "0.0.0.0"  # noqa: S104 -- what the user asked for is told
_LINE: Final = re.compile(r"(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+([0-9.*]+)\s+(\d+)\s+\S+\s+(\d+)\b")


def read_forwards(monitor: Monitor, *, deadline: Deadline) -> tuple[Forward, ...]:
    """All of them, that to sshd first.

    `info usernet` exists in the human monitor only (QEMU 7.2 to 10); QEMU's own tests read it the same way. Raises
    HostError where sshd's is not among them.
    """
    text = monitor.human("info usernet", deadline=deadline).replace("\r", "")
    block = re.search(rf"\({NETDEV_ID}\):\n(.*)", text, re.DOTALL)
    found = [
        Forward(address.replace("*", _ANY), int(host), int(guest), "udp" if protocol == "UDP" else "tcp")
        for protocol, address, host, guest in _LINE.findall(block[1] if block else "")
    ]
    ssh = next((one for one in found if (one.protocol, one.guest_port) == ("tcp", GUEST_SSH_PORT)), None)
    if ssh is None:
        raise HostError(
            "QEMU's user network has no forward to the guest's SSH port",
            hint="this QEMU may be built without slirp; `vmrunner doctor` checks it",
            details=text,
        )
    return (ssh, *(one for one in found if one is not ssh))


def tell_forwards(forwards: Iterable[Forward], emit: Emit) -> None:
    """Say where they lead, for whoever left the port to QEMU."""
    for forward in forwards:
        emit(Note(f"forwarded: {forward.arrow}"))

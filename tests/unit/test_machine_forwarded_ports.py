"""What QEMU says of its user network's forwards."""

from __future__ import annotations

import pytest
from fake_qmp import qmp_session

from vmrunner.config.network_values import Forward
from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.forwarded_ports import read_forwards
from vmrunner.machine.monitor import open_monitor

# QEMU 7.2 with -netdev user,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp::0-:80,hostfwd=udp:127.0.0.1:5353-:53
SAID = """Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  UDP[HOST_FORWARD]  14       127.0.0.1  5353       10.0.2.15    53     0     0\r
  TCP[HOST_FORWARD]  13               * 40124       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0\r
  TCP[ESTABLISHED]   15       127.0.0.1 40123       10.0.2.15    22     0     0\r
"""


def read(text: str) -> tuple[Forward, ...]:
    deadline = Deadline.after(5)
    with (
        qmp_session(human_monitor_command=text) as (sock, _),
        open_monitor(sock, deadline=deadline) as monitor,
    ):
        return read_forwards(monitor, deadline=deadline)


def test_sshd_is_the_first() -> None:
    assert read(SAID) == (
        Forward("127.0.0.1", 40123, 22),
        Forward("127.0.0.1", 5353, 53, "udp"),
        Forward("0.0.0.0", 40124, 80),
    )


def test_without_sshd_it_is_no_use() -> None:
    with pytest.raises(HostError, match="no forward to the guest's SSH port"):
        read(SAID.replace(" 22 ", " 23 "))

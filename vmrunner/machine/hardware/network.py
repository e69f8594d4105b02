"""The network cards and what they reach."""

from __future__ import annotations

from vmrunner.machine.hardware.words import option
from vmrunner.machine.plan import MachinePlan

NETDEV_ID = "net0"
NIC_ID = "nic0"
GUEST_SSH_PORT = 22


def network_arguments(plan: MachinePlan) -> list[str]:
    """The first NIC, on QEMU's user network, with a forward to sshd on a loopback port that QEMU chooses.

    `restrict=on` leaves forwards and cuts all else off. Port 0 is asked for here and read back from the running
    QEMU, so that two machines never want the same port. The NIC has no option ROM: nothing boots from it.
    """
    netdev = option(
        "user", id=NETDEV_ID, ipv6="off", restrict="off" if plan.network == "user" else "on",
        hostfwd=f"tcp:127.0.0.1:0-:{GUEST_SSH_PORT}",
    )  # fmt: skip
    for forward in plan.forwards:
        netdev += f",hostfwd={forward.protocol}:{forward.address}:{forward.host_port}-:{forward.guest_port}"
    mac = {"mac": plan.mac} if plan.mac else {}
    return [
        "-netdev", netdev,
        "-device", option("virtio-net-pci", id=NIC_ID, netdev=NETDEV_ID, romfile="", **mac),
    ]  # fmt: skip


def extra_nic_arguments(plan: MachinePlan) -> list[str]:
    """The NICs besides the first, each on a network of its own that leads nowhere: 10.0.3.0/24 and on."""
    words: list[str] = []
    for number in range(1, plan.nics):
        netdev = option("user", id=f"net{number}", ipv6="off", restrict="on", net=f"10.0.{2 + number}.0/24")
        words += [
            "-netdev", netdev,
            "-device", option("virtio-net-pci", id=f"nic{number}", netdev=f"net{number}", romfile=""),
        ]  # fmt: skip
    return words

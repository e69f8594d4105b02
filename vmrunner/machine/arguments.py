"""The QEMU argument list, as a pure function of the plan: one small function per feature.

Facts about options are from the QEMU manual (qemu(1), QEMU 7.2) unless a comment says otherwise.
"""

from __future__ import annotations

import base64
from pathlib import Path

from vmrunner.config.units import Size
from vmrunner.machine.plan import MachinePlan, Share

NETDEV_ID = "net0"
GUEST_SSH_PORT = 22


def qemu_arguments(plan: MachinePlan, *, monitor_fd: int | str) -> list[str]:
    """The whole command line. `monitor_fd` is the inherited socket that QMP speaks on."""
    return [
        str(plan.qemu),
        *machine_arguments(plan),
        *lifecycle_arguments(),
        *monitor_arguments(monitor_fd),
        *boot_arguments(plan),
        *serial_arguments(plan),
        *disk_arguments(plan),
        *network_arguments(plan),
        *device_arguments(),
        *share_arguments(plan.shares),
        *credential_arguments(plan.credentials),
        *plan.extra_arguments,
    ]


def machine_arguments(plan: MachinePlan) -> list[str]:
    """Machine type, accelerator, CPUs and memory, and nothing that QEMU would add by itself."""
    accelerator = _option("tcg", thread="multi") if plan.accelerator == "tcg" else "kvm"
    return [
        "-name", _option(f"guest={_escape(plan.name)}"),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", "q35,vmport=off",
        "-accel", accelerator,
        "-cpu", plan.cpu_model,
        "-smp", str(plan.cpus),
        "-m", f"size={_memory_size(plan.memory)}",
    ]  # fmt: skip


def lifecycle_arguments() -> list[str]:
    """What QEMU may do to the host, and what it does when the guest reboots or panics.

    A reboot ends the machine (the run cannot go on in a fresh boot). A panic pauses it, so that the event is
    seen before anything else happens.
    """
    return [
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-action", "reboot=shutdown,shutdown=poweroff,panic=pause",
    ]  # fmt: skip


def monitor_arguments(monitor_fd: int | str) -> list[str]:
    """QMP over a socket that QEMU inherits: no listening path, so neither a race nor a limit on its length."""
    return [
        "-chardev", f"socket,id=monitor,fd={monitor_fd}",
        "-mon", "chardev=monitor,mode=control",
    ]  # fmt: skip


def boot_arguments(plan: MachinePlan) -> list[str]:
    """Direct kernel boot."""
    arguments = ["-kernel", str(plan.boot.kernel)]
    if plan.boot.initrd:
        arguments += ["-initrd", str(plan.boot.initrd)]
    return [*arguments, "-append", " ".join(plan.boot.command_line)]


def serial_arguments(plan: MachinePlan) -> list[str]:
    """The first UART is the guest's console; all it prints is kept."""
    return [
        "-chardev", _option("file", id="serial", path=plan.serial_log),
        "-serial", "chardev:serial",
    ]  # fmt: skip


def disk_arguments(plan: MachinePlan) -> list[str]:
    """The root disk. Flushes are not passed on: the overlay of a throw-away machine need not outlive a host crash."""
    return [
        "-blockdev", _option(
            "file", **{"node-name": "root-file"}, filename=plan.disk.overlay,
            discard="unmap", **{"cache.no-flush": "on"},
        ),
        "-blockdev", _option(
            "qcow2", **{"node-name": "root"}, file="root-file", discard="unmap", **{"cache.no-flush": "on"}
        ),
        "-device", _option("virtio-blk-pci", id="disk0", drive="root", serial="root"),
    ]  # fmt: skip


def network_arguments(plan: MachinePlan) -> list[str]:
    """One NIC on QEMU's user network, with a forward to sshd on a loopback port that QEMU chooses.

    `restrict=on` leaves that forward and cuts all else off. Port 0 is asked for here and read back from the running
    QEMU, so that two machines never want the same port. The NIC has no option ROM: nothing boots from it.
    """
    return [
        "-netdev", _option(
            "user", id=NETDEV_ID, ipv6="off", restrict="on" if plan.network == "restricted" else "off",
            hostfwd=f"tcp:127.0.0.1:0-:{GUEST_SSH_PORT}",
        ),
        "-device", _option("virtio-net-pci", id="nic0", netdev=NETDEV_ID, romfile=""),
    ]  # fmt: skip


def device_arguments() -> list[str]:
    """Entropy, a generation id that tells a restored guest it is a new machine, and a panic that is heard."""
    return [
        "-device", "virtio-rng-pci,id=rng0",
        "-device", "vmgenid,id=vmgenid0,guid=auto",
        "-device", "pvpanic-pci,id=pvpanic0",
    ]  # fmt: skip


def share_arguments(shares: tuple[Share, ...]) -> list[str]:
    """The 9p exports. `security_model=none`: files belong to QEMU's user, whatever the guest's root says."""
    arguments: list[str] = []
    for share in shares:
        arguments += [
            "-fsdev", _option(
                "local", id=f"fs-{share.tag}", path=share.path, security_model="none", multidevs="remap",
                readonly="on" if share.readonly else "off",
            ),
            "-device", _option("virtio-9p-pci", id=f"share-{share.tag}", fsdev=f"fs-{share.tag}", mount_tag=share.tag),
        ]  # fmt: skip
    return arguments


def credential_arguments(credentials: tuple[tuple[str, str], ...]) -> list[str]:
    """System credentials as SMBIOS type 11 strings (systemd.system-credentials(7))."""
    arguments: list[str] = []
    for name, value in credentials:
        encoded = base64.b64encode(value.encode()).decode()
        arguments += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]
    return arguments


def _memory_size(size: Size) -> str:
    """QEMU takes a number without a unit for mebibytes."""
    text = str(size)
    return f"{text}B" if text.isdecimal() else text


def _option(first: str, **properties: str | Path) -> str:
    """Render `first,key=value,...`, with commas in values doubled as QEMU wants them."""
    return ",".join([first, *(f"{key}={_escape(str(value))}" for key, value in properties.items())])


def _escape(value: str) -> str:
    return value.replace(",", ",,")

"""The QEMU argument list, as a pure function of the plan: one small function per feature.

Facts about options are from the QEMU manual (qemu(1), QEMU 7.2) unless a comment says otherwise.
"""

from __future__ import annotations

import base64
from pathlib import Path

from vmrunner.config.units import Size
from vmrunner.machine.plan import MachinePlan, Share

NETDEV_ID = "net0"
MEMORY_ID = "ram"
GUEST_SSH_PORT = 22


def qemu_arguments(plan: MachinePlan, *, monitor_fd: int | str | None = None) -> list[str]:
    """The whole command line. `monitor_fd` is the inherited socket that QMP speaks on; a long-lived machine has none."""
    return [
        str(plan.qemu),
        *machine_arguments(plan),
        *memory_arguments(plan),
        *lifecycle_arguments(plan),
        *monitor_arguments(plan, monitor_fd),
        *boot_arguments(plan),
        *serial_arguments(plan),
        *disk_arguments(plan),
        *network_arguments(plan),
        *device_arguments(),
        *share_arguments(plan.shares),
        *credential_arguments(plan.credentials),
        # A secret, so from a file: everybody may read a process's arguments.
        *("-smbios", _option("type=11", path=plan.host_key_file)),
        *plan.extra_arguments,
    ]


def machine_arguments(plan: MachinePlan) -> list[str]:
    """Machine type, accelerator and CPUs, and nothing that QEMU would add by itself.

    The type is named with its version: a saved state fits that version only.
    """
    # Translated code may take 256 MiB; by default it is 1 GiB for each machine, and no faster (measured).
    tcg = _option("tcg", thread="multi", **{"tb-size": "256"})
    accelerator = tcg if plan.accelerator == "tcg" else "kvm"
    return [
        "-name", _option(f"guest={_escape(plan.name)}"),
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", f"{plan.machine_type},vmport=off,memory-backend={MEMORY_ID}",
        "-accel", accelerator,
        "-cpu", plan.cpu_model,
        "-smp", str(plan.cpus),
    ]  # fmt: skip


def memory_arguments(plan: MachinePlan) -> list[str]:
    """The guest's memory, always a backend of the same name: saved state refers to it by that.

    QEMU opens the file of a private mapping for writing too (7.2, measured), but does not write to it.
    """
    size = _memory_size(plan.memory)
    if plan.memory_file is None:
        backend = _option("memory-backend-ram", id=MEMORY_ID, size=size)
    else:
        share = "on" if plan.memory_file.shared else "off"
        path = {"mem-path": plan.memory_file.path}
        backend = _option("memory-backend-file", id=MEMORY_ID, size=size, share=share, **path)
    return ["-m", f"size={size}", "-object", backend]


def lifecycle_arguments(plan: MachinePlan) -> list[str]:
    """What QEMU may do to the host, and what it does when the guest reboots or panics.

    A reboot ends the machine of one run (which cannot go on in a fresh boot). A panic pauses it, so that the event is
    seen before anything else happens. An incoming machine stays stopped until it is told to go on.
    """
    reboot = "reset" if plan.long_lived else "shutdown"
    return [
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-action", f"reboot={reboot},shutdown=poweroff,panic=pause",
        *(("-incoming", "defer", "-S") if plan.incoming else ()),
    ]  # fmt: skip


def monitor_arguments(plan: MachinePlan, monitor_fd: int | str | None) -> list[str]:
    """QMP over a socket that QEMU inherits: no listening path, so neither a race nor a limit on its length.

    A long-lived machine listens on a path, for whoever comes later.
    """
    if plan.long_lived:
        endpoint = _option(
            "socket", id="monitor", path=plan.long_lived.monitor_socket, server="on", wait="off"
        )
    else:
        endpoint = _option("socket", id="monitor", fd=str(monitor_fd))
    return ["-chardev", endpoint, "-mon", "chardev=monitor,mode=control"]


def boot_arguments(plan: MachinePlan) -> list[str]:
    """Direct kernel boot. A machine that is restored has its kernel in its memory, and needs it only to reboot."""
    if plan.incoming and not plan.long_lived:
        return []
    arguments = ["-kernel", str(plan.boot.kernel)]
    if plan.boot.initrd:
        arguments += ["-initrd", str(plan.boot.initrd)]
    return [*arguments, "-append", " ".join(plan.boot.command_line)]


def serial_arguments(plan: MachinePlan) -> list[str]:
    """The first UART is the guest's console; all it prints is kept. A long-lived machine's can be typed at too."""
    if plan.long_lived:
        chardev = _option(
            "socket", id="serial", path=plan.long_lived.console_socket, server="on", wait="off",
            logfile=plan.serial_log, logappend="on",
        )  # fmt: skip
    else:
        chardev = _option("file", id="serial", path=plan.serial_log)
    return ["-chardev", chardev, "-serial", "chardev:serial"]


def disk_arguments(plan: MachinePlan) -> list[str]:
    """The root disk. Flushes of a throw-away machine are not passed on: its overlay need not outlive a host crash."""
    flush = {"cache.no-flush": "off" if plan.long_lived else "on"}
    return [
        "-blockdev", _option(
            "file", **{"node-name": "root-file"}, filename=plan.disk.overlay, discard="unmap", **flush
        ),
        "-blockdev", _option("qcow2", **{"node-name": "root"}, file="root-file", discard="unmap", **flush),
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

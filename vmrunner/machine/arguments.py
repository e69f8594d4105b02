"""The QEMU argument list, as a pure function of the plan: one small function per feature.

Facts about options are from the QEMU manual (qemu(1), QEMU 7.2) unless a comment says otherwise.
"""

from __future__ import annotations

import base64

from vmrunner.machine.hardware.devices import (
    clock_arguments,
    device_arguments,
    late_device_arguments,
    share_arguments,
)
from vmrunner.machine.hardware.disks import disk_arguments, extra_disk_arguments
from vmrunner.machine.hardware.memory import MEMORY_ID, memory_arguments, more_memory_arguments
from vmrunner.machine.hardware.network import (
    GUEST_SSH_PORT,
    NETDEV_ID,
    extra_nic_arguments,
    network_arguments,
)
from vmrunner.machine.hardware.processor import machine_arguments
from vmrunner.machine.hardware.words import option
from vmrunner.machine.plan import MachinePlan

__all__ = [
    "GUEST_SSH_PORT", "MEMORY_ID", "NETDEV_ID", "boot_arguments", "clock_arguments", "credential_arguments",
    "device_arguments", "disk_arguments", "extra_disk_arguments", "extra_nic_arguments", "late_device_arguments",
    "lifecycle_arguments", "machine_arguments", "memory_arguments", "monitor_arguments", "more_memory_arguments", "network_arguments",
    "qemu_arguments", "serial_arguments", "share_arguments",
]  # fmt: skip


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
        *device_arguments(plan),
        *share_arguments(plan.shares),
        *more_memory_arguments(plan),
        *late_device_arguments(plan),
        *extra_disk_arguments(plan),
        *extra_nic_arguments(plan),
        *clock_arguments(plan),
        *credential_arguments(plan.credentials),
        # A secret, so from a file: everybody may read a process's arguments.
        *("-smbios", option("type=11", path=plan.host_key_file)),
        *plan.extra_arguments,
    ]


def lifecycle_arguments(plan: MachinePlan) -> list[str]:
    """What QEMU may do to the host, and what it does when the guest reboots or panics.

    A reboot ends the machine of one run (which cannot go on in a fresh boot). A panic pauses it, so that the event is
    seen before anything else happens. An incoming machine stays stopped until it is told to go on.
    """
    reboot = "reset" if plan.long_lived else "shutdown"
    watchdog = f",watchdog={plan.watchdog}" if plan.watchdog else ""
    return [
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-action", f"reboot={reboot},shutdown=poweroff,panic=pause{watchdog}",
        *(("-incoming", "defer", "-S") if plan.incoming else ()),
    ]  # fmt: skip


def monitor_arguments(plan: MachinePlan, monitor_fd: int | str | None) -> list[str]:
    """QMP over a socket that QEMU inherits: no listening path, so neither a race nor a limit on its length.

    A long-lived machine listens on a path, for whoever comes later.
    """
    if plan.long_lived:
        endpoint = option(
            "socket", id="monitor", path=plan.long_lived.monitor_socket, server="on", wait="off"
        )
    else:
        endpoint = option("socket", id="monitor", fd=str(monitor_fd))
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
        chardev = option(
            "socket", id="serial", path=plan.long_lived.console_socket, server="on", wait="off",
            logfile=plan.serial_log, logappend="on",
        )  # fmt: skip
    else:
        chardev = option("file", id="serial", path=plan.serial_log)
    return ["-chardev", chardev, "-serial", "chardev:serial"]


def credential_arguments(credentials: tuple[tuple[str, str], ...]) -> list[str]:
    """System credentials as SMBIOS type 11 strings (systemd.system-credentials(7))."""
    arguments: list[str] = []
    for name, value in credentials:
        encoded = base64.b64encode(value.encode()).decode()
        arguments += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]
    return arguments

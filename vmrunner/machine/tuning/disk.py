"""The root disk: its limits, and its size with that of the file system on it."""

from __future__ import annotations

from collections.abc import Mapping

from vmrunner.config.disk_values import limits_of_throttle, throttle_limits
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError, GuestError
from vmrunner.host.deadline import Deadline
from vmrunner.machine.hardware.disks import THROTTLE_GROUP, TOP_NODE
from vmrunner.machine.machine import Machine
from vmrunner.machine.tuning.change import Change

_GROUP = {"path": f"/objects/{THROTTLE_GROUP}", "property": "limits"}
_KEYS = [f"{unit}-{way}" for unit in ("bps", "iops") for way in ("total", "read", "write")]
# QEMU keeps what a new set of limits does not name.
_NONE = {
    **dict.fromkeys(_KEYS, 0),
    **{f"{key}-max": 0 for key in _KEYS},
    **{f"{key}-max-length": 1 for key in _KEYS},
}
_GROW = """for grow in /usr/lib/systemd/systemd-growfs /run/current-system/systemd/lib/systemd/systemd-growfs; do
  [ ! -x $grow ] || exec $grow /
done
exec resize2fs /dev/vda"""
_SIZES = "read -r sectors </sys/class/block/vda/size; echo $sectors; stat -f -c '%b %S' /"


def set_limits(machine: Machine, limits: Mapping[str, str], *, deadline: Deadline) -> Change:
    """Put `limits` in the place of those that there are."""
    before = read_limits(machine, deadline)
    value = {**_NONE, **throttle_limits(limits)}
    machine.monitor.execute("qom-set", {**_GROUP, "value": value}, deadline=deadline)
    after = read_limits(machine, deadline)
    return Change("disk-limits", _shown(before), _shown(after), "QEMU", complete=after == dict(limits))


def read_limits(machine: Machine, deadline: Deadline) -> dict[str, str]:
    """The limits in force."""
    return limits_of_throttle(machine.monitor.execute("qom-get", _GROUP, deadline=deadline))


def grow(machine: Machine, wanted: Size, *, deadline: Deadline) -> Change:
    """Make the disk larger, and the guest's root file system with it.

    Raises ConfigError where it would become smaller, GuestError where the file system stays behind: the disk has grown.
    """
    if wanted < machine.plan.disk.size:
        raise ConfigError(
            f"`disk` is {wanted}, but the disk has {machine.plan.disk.size} already",
            hint="a disk can only grow",
        )
    before, _ = _sizes(machine, deadline)
    machine.monitor.execute("block_resize", {"node-name": TOP_NODE, "size": int(wanted)}, deadline=deadline)
    done = machine.guest.execute(["/bin/sh", "-c", _GROW], deadline=deadline)
    if done.code:
        raise GuestError(
            f"the disk has grown to {wanted}, and the guest's file system did not grow with it",
            details=done.stderr.strip() or None,
        )
    after, file_system = _sizes(machine, deadline)
    remark = f"its file system has {Size(file_system).for_people()}"
    return Change("disk", str(Size(before)), str(Size(after)), "guest", remark, complete=after == wanted)


def _sizes(machine: Machine, deadline: Deadline) -> tuple[int, int]:
    """Bytes of the disk and of the root file system, as the guest sees them."""
    done = machine.guest.execute(["/bin/sh", "-c", _SIZES], deadline=deadline)
    words = done.stdout.split()
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 19 for word in words):
        raise GuestError(
            "the guest does not say how large its disk is", details=(done.stderr or done.stdout)[:500]
        )
    sectors, blocks, block = map(int, words)
    return sectors * 512, blocks * block


def _shown(limits: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in limits.items()) or "none"

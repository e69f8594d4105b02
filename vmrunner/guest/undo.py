"""Undo a run in a guest that goes on living: nothing of it is left in the shares and the working directory."""

from __future__ import annotations

import re
import shlex

from vmrunner.errors import GuestError
from vmrunner.guest import inbox
from vmrunner.guest.ssh import Guest
from vmrunner.guest.unit import UNIT
from vmrunner.host.deadline import Deadline


def undo_run(guest: Guest, *, mounts: str, deadline: Deadline) -> None:
    """Stop the unit, take its mounts away (`mounts` is that run's fstab, as the host wrote it), empty its directory.

    The shares are unmounted too: the next run's files must not be mistaken for these (`in` is cached), and a machine
    with a mounted share cannot be saved. Raises GuestError where something in the guest still holds on to them.
    """
    done = guest.execute(undo_script(mounts), deadline=deadline)
    if done.code:
        raise GuestError(
            "the run before could not be cleared away in the guest",
            hint="a process that it left may still use its files; `vmrunner reset NAME` gives a clean machine",
            details=done.stderr.strip() or None,
        )


def unmount_shares(guest: Guest, *, mounts: str, deadline: Deadline) -> None:
    """Unmount what the last run mounted and leave the rest of it: a machine with a mounted share cannot be saved.

    Raises GuestError where something in the guest still holds on to it.
    """
    done = guest.execute(["sh", "-c", unmount_script(mounts)], deadline=deadline)
    if done.code:
        raise GuestError(
            "the shares with the host are in use in the guest, so its state cannot be saved",
            hint="end the programs in the guest that use them (`fuser -vm /run/vmrunner/in /run/vmrunner/out`)",
            details=done.stderr.strip() or None,
        )


def unmount_script(mounts: str) -> str:
    """The script for that; it fails where a share stays mounted."""
    points = [line.split()[1] for line in mounts.splitlines() if line and not line.startswith("#")]
    targets = " ".join(shlex.quote(_unescaped(point)) for point in reversed(points))
    shares = f"grep -qs -e ' {inbox.IN} ' -e ' {inbox.OUT} ' /proc/mounts"
    return "\n".join(
        [
            f"{shares} || exit 0",
            f"umount {targets} 2>/dev/null" if targets else ":",
            f"umount {inbox.IN} {inbox.OUT}",
            f"! {shares}",
        ]
    )


def undo_script(mounts: str) -> str:
    """The script for that; it fails where a mount stays."""
    points = [line.split()[1] for line in mounts.splitlines() if line and not line.startswith("#")]
    targets = [shlex.quote(_unescaped(point)) for point in reversed(points)]
    return "\n".join(
        [
            f"systemctl stop {UNIT}",
            f"umount {' '.join(targets)} 2>/dev/null" if targets else ":",
            f"umount {inbox.IN} {inbox.OUT}",
            f"grep -qs -e ' {inbox.IN} ' -e ' {inbox.OUT} ' /proc/mounts && exit 1",
            # Only this very file system: whatever is still mounted below it is not ours to empty.
            f"cd {inbox.STATE} && rm -rf --one-file-system -- * .[!.]* ..?*",
            f"mkdir -p {' '.join(map(str, inbox.OVERLAY_DIRECTORIES))}",
        ]
    )


def _unescaped(point: str) -> str:
    """What `inbox` escaped for fstab(5): octal codes of three digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)

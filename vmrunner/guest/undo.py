"""Undo a run in a guest that goes on living: nothing of it is left in the shares and the working directory.

The guest's own `prepare` does it; what it takes away it finds in the guest's table of mounts.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmrunner.errors import GuestError
from vmrunner.guest.preparation import PREPARE
from vmrunner.guest.ssh import Guest
from vmrunner.guest.unit import journal_of_unit
from vmrunner.host.deadline import Deadline


def clear_away(guest: Guest, *, deadline: Deadline) -> None:
    """End what the last run left running, unmount what it mounted, empty its directory, and arm the unit for the next.

    Raises GuestError where something in the guest still holds on to it.
    """
    _prepare(
        guest,
        ("undo", "arm"),
        "the run before could not be cleared away in the guest",
        hint="a process that it left may still use its files; `vmrunner reset NAME` gives a clean machine",
        deadline=deadline,
    )


def unmount_shares(guest: Guest, *, deadline: Deadline) -> None:
    """Unmount what the last run mounted and leave the rest of it: a machine with a mounted share cannot be saved.

    Raises GuestError where something in the guest still holds on to it.
    """
    _prepare(
        guest,
        ("unmount",),
        "the shares with the host are in use in the guest, so its state cannot be saved",
        hint="end the programs in the guest that use them (`fuser -vm /run/vmrunner/in /run/vmrunner/out`)",
        deadline=deadline,
    )


def _prepare(guest: Guest, what: Sequence[str], failure: str, *, hint: str, deadline: Deadline) -> None:
    done = guest.execute([PREPARE, *what], deadline=deadline)
    if done.code:
        words = (done.stderr.strip(), journal_of_unit(guest, deadline=deadline))
        raise GuestError(failure, hint=hint, details="\n".join(filter(None, words)) or None)

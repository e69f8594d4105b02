"""Whether the guest's kernel is still sound: it may survive a bug of its own, less what had met it."""

from __future__ import annotations

from vmrunner.errors import GuestError, GuestPanicked
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline

_TAINTED = "/proc/sys/kernel/tainted"
# "kernel died recently, i.e. there was an OOPS or BUG" (the kernel's admin-guide/tainted-kernels.rst).
_DIED = 1 << 7


def check_kernel(guest: Guest, *, deadline: Deadline) -> None:
    """Raise GuestPanicked where the kernel has met a bug; raises ConnectionLost, and GuestError where it does not say."""
    shown = guest.execute(["cat", _TAINTED], deadline=deadline)
    try:
        flags = int(shown.stdout)
    except ValueError:
        raise GuestError(
            "the guest does not say how its kernel is", details=repr(shown.stdout[:64])
        ) from None
    if flags & _DIED:
        raise GuestPanicked(f"the guest's kernel has met a bug of its own (flags {flags} in {_TAINTED})")

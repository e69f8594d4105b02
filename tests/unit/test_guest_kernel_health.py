"""A kernel that has met a bug of its own is told from one that is sound."""

from __future__ import annotations

import contextlib

import pytest
from fake_sshd import answer, running_sshd

from vmrunner.errors import GuestError, GuestPanicked
from vmrunner.guest.kernel_health import check_kernel
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline


def check(shown: str) -> None:
    """What comes of a guest that shows these flags."""
    with running_sshd(answer(stdout=shown.encode())) as sshd:
        guest = Guest(sshd.endpoint, alive=lambda: None)
        guest.connect(Deadline.after(10))
        with contextlib.closing(guest):
            check_kernel(guest, deadline=Deadline.after(10))


# An unsigned module, one from outside the tree, a warning.
@pytest.mark.parametrize("flags", [0, 1 << 12, 1 << 13, 1 << 9, 127])
def test_other_flags_are_no_bug(flags: int) -> None:
    check(f"{flags}\n")


@pytest.mark.parametrize("flags", [128, 128 + 512])
def test_a_bug_is_told(flags: int) -> None:
    with pytest.raises(GuestPanicked, match=f"flags {flags} in /proc/sys/kernel/tainted"):
        check(f"{flags}\n")


@pytest.mark.parametrize("shown", ["", "none\n"])
def test_a_guest_that_does_not_say(shown: str) -> None:
    with pytest.raises(GuestError) as caught:
        check(shown)
    assert type(caught.value) is GuestError

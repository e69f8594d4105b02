"""Getting into a running VM, for the verbs that work inside one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible

if TYPE_CHECKING:
    from vmrunner.guest.ssh import Guest

_ATTACH_SECONDS = 60.0


@contextmanager
def attached_guest(name: str) -> Iterator[tuple[Guest, Deadline]]:
    """Log in to the VM `name`; the deadline is what is left of the time for getting in and starting something there."""
    from vmrunner.machine.vm import attached

    with interruptible():
        deadline = Deadline.after(_ATTACH_SECONDS)
        with attached(name, deadline=deadline) as vm:
            yield vm.guest, deadline

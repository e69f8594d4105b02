"""Getting into a running VM, for the verbs that work inside one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vmrunner.errors import GuestError
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible

if TYPE_CHECKING:
    from vmrunner.guest.ssh import Guest
    from vmrunner.machine.vm import Attached

_ATTACH_SECONDS = 60.0


@contextmanager
def attached_guest(name: str, *, forwards: bool = False) -> Iterator[tuple[Guest, Deadline]]:
    """Log in to the VM `name`; the deadline is what is left of the time for getting in and starting something there.

    With `forwards` the VM's `host-forwards` work meanwhile; one that cannot be had is told as a warning, as ssh(1) does.
    """
    from vmrunner.machine.vm import attached

    with interruptible():
        deadline = Deadline.after(_ATTACH_SECONDS)
        with attached(name, deadline=deadline) as vm:
            if forwards:
                _forward(vm, deadline)
            yield vm.guest, deadline


def _forward(vm: Attached, deadline: Deadline) -> None:
    from vmrunner.guest.host_forwards import serve_host_forwards

    for forward in vm.record.plan.host_forwards:
        try:
            serve_host_forwards(vm.guest, [forward], deadline=deadline)
        except GuestError as error:
            click.echo(f"warning: {error.message}", err=True)

"""`vmrunner console`: the serial console of a running VM."""

from __future__ import annotations

import contextlib
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.errors import GuestLost
from vmrunner.events import Note
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible

_ASK_SECONDS = 5.0


@click.command("console")
@click.argument("name")
def command(name: str) -> None:
    """Sit down at the serial console of the VM NAME; Ctrl-] leaves it.

    A shell answers there after the first Enter; it goes on answering where SSH does not, when the network is gone. A guest
    that cannot be asked for it over SSH, because it still boots, shows what it prints. One person at a time.

    \b
    Examples:
      vmrunner console db
      echo 'systemctl restart vmrunner-ssh' | vmrunner console db
    """
    from vmrunner.guest.console import run_console
    from vmrunner.guest.ssh import ConnectionLost
    from vmrunner.machine.vm import console_socket, start_login_at_console

    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        path = console_socket(name)
        try:
            start_login_at_console(name, deadline=Deadline.after(_ASK_SECONDS))
        except (GuestLost, ConnectionLost):
            display(
                Note("the guest could not be asked over SSH to listen here; it may all the same", "warning")
            )
        run_console(path, stdin=0, stdout=1, emit=display)

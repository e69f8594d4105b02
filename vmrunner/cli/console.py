"""`vmrunner console`: the serial console of a running VM."""

from __future__ import annotations

import contextlib
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.host.signals import interruptible


@click.command("console")
@click.argument("name")
def command(name: str) -> None:
    """Sit down at the serial console of the VM NAME; Ctrl-] leaves it.

    It works where SSH does not: while the guest boots, or when its network is gone. One person at a time.

    \b
    Examples:
      vmrunner console db
      echo 'systemctl restart ssh' | vmrunner console db
    """
    from vmrunner.guest.console import run_console
    from vmrunner.machine.vm import console_socket

    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        run_console(console_socket(name), stdin=0, stdout=1, emit=display)

"""`vmrunner reset`: a VM as it was when it was new."""

from __future__ import annotations

import contextlib
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.run.vm_lifecycle import reset_vm

_SECONDS = 3600.0


@click.command("reset")
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Also where a test run has the VM.")
def command(name: str, force: bool) -> None:
    """Throw away all that the VM NAME has written and remembers, and start it clean.

    Name, settings and snapshots stay. A VM that was stopped, or died, runs afterwards too.

    \b
    Example:
      vmrunner reset db
    """
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        reset_vm(name, force=force, emit=display, deadline=Deadline.after(_SECONDS))
    click.echo(f"{name} is clean, and up", err=True)

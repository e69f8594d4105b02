"""`vmrunner rm`: remove VMs, with all they have."""

from __future__ import annotations

import contextlib
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.host.signals import interruptible
from vmrunner.run.vm_lifecycle import remove_vms


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-f", "--force", is_flag=True, help="Also VMs that run, that a test run has, or that are damaged."
)
def command(names: tuple[str, ...], force: bool) -> None:
    """Remove the VM NAME: its disk, its snapshots, its logs, and with --force its process.

    \b
    Example:
      vmrunner rm -f db
    """
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        remove_vms(names, force=force, emit=display)

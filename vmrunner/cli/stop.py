"""`vmrunner stop`: shut a VM down and keep its disk."""

from __future__ import annotations

import contextlib
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.config.units import Duration
from vmrunner.host.signals import interruptible
from vmrunner.run.vm_lifecycle import stop_vm


@click.command("stop")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--timeout", metavar="TIME", default="30s", show_default=True, help="End what has not shut down by then."
)
@click.option("-f", "--force", is_flag=True, help="Also where a test run has the VM.")
def command(names: tuple[str, ...], timeout: str, force: bool) -> None:
    """Shut the VM NAME down; `vmrunner up` boots it again from its disk.

    \b
    Example:
      vmrunner stop db
    """
    try:
        seconds = Duration.parse(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        for name in names:
            stop_vm(name, timeout=seconds, force=force, emit=display)

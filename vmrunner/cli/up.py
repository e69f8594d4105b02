"""`vmrunner up`: a VM that stays."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from vmrunner.cli.options import OF_TEST_RUNS, config_options
from vmrunner.cli.progress import open_display
from vmrunner.cli.sections import SectionedCommand
from vmrunner.config.load import load_config
from vmrunner.config.option import SHAPE
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.machine.vm_record import DEFAULT_NAME
from vmrunner.run.vm_lifecycle import bring_up


@click.command("up", cls=SectionedCommand)
@click.argument("name", default=DEFAULT_NAME)
@config_options(*SHAPE, "guest", "run", leave_out=("hosts", "env", *OF_TEST_RUNS), also=("nix_store",))
def command(name: str, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Start the VM NAME, made where there is none yet, and leave it running.

    It outlives this shell and this login. A VM that was stopped, or died, boots from its disk as it was left. Settings
    are those of the VM; others than it was made with are refused.

    \b
    Examples:
      vmrunner up
      vmrunner up db --memory 4G --network user
    """
    loaded = load_config(directory=Path.cwd(), file=config_file, environ=os.environ, flags=flags)
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        record = bring_up(name, loaded, emit=display, deadline=Deadline.after(loaded.config.timeout))
    click.echo(f"{record.name} is up. Get in: vmrunner ssh {record.name}", err=True)

"""`vmrunner ssh`: a login shell in a running VM."""

from __future__ import annotations

import os

import click

from vmrunner.cli.attaching import attached_guest
from vmrunner.cli.dashes import AFTER_DASHES, CommandWithRest


@click.command("ssh", cls=CommandWithRest, rest="SHELL COMMAND")
@click.argument("name")
@click.pass_context
def command(context: click.Context, name: str) -> int:
    """Open a login shell in the VM NAME, at a terminal where this is one.

    What follows -- is given to the guest's shell instead, as one line, as ssh(1) does. The exit code is that of the
    shell; vmrunner's own are 2 and 20 to 25.

    \b
    Examples:
      vmrunner ssh db
      vmrunner ssh db -- 'ps aux | grep postgres'
    """
    from vmrunner.guest.session import run_session

    line = " ".join(context.meta.get(AFTER_DASHES, ())) or None
    with attached_guest(name, forwards=True) as (guest, deadline):
        return run_session(guest, line, tty=os.isatty(0), stdin=0, stdout=1, stderr=2, deadline=deadline)

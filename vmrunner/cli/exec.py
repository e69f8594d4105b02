"""`vmrunner exec`: one program in a running VM."""

from __future__ import annotations

import click

from vmrunner.cli.attaching import attached_guest
from vmrunner.cli.dashes import AFTER_DASHES, CommandWithRest
from vmrunner.errors import UsageError


@click.command("exec", cls=CommandWithRest, rest="PROGRAM ARGS")
@click.argument("name")
@click.option("-t", "--tty", is_flag=True, help="Give the program a terminal, like this one.")
@click.option("-w", "--workdir", metavar="DIR", help="Run it in this directory.  [default: root's home]")
@click.option(
    "-e", "--env", "variables", metavar="KEY=VALUE", multiple=True, help="Set a variable; repeatable."
)
@click.pass_context
def command(
    context: click.Context, name: str, tty: bool, workdir: str | None, variables: tuple[str, ...]
) -> int:
    """Run a program in the VM NAME, and end as it ends.

    What follows -- is the program and its arguments, as they are: no shell reads them. Standard input, output and error
    are passed on separately, byte for byte. Ctrl-C and SIGTERM reach the program.

    The exit code is the program's: 128 + N where signal N ended it, 127 where there is no such program. Where vmrunner
    itself fails it is 2 or 20 to 25, and the last lines on stderr begin with `error:`.

    \b
    Examples:
      vmrunner exec db -- journalctl -b
      vmrunner exec db -- tar -cz /etc > etc.tar.gz
      vmrunner exec db -w /srv -e LANG=C -- sh -c 'echo "$PWD"'
    """
    from vmrunner.guest.session import run_session, shell_line

    argv = context.meta.get(AFTER_DASHES, ())
    if not argv:
        raise UsageError(
            "there is no program to run", hint=f"put it after two dashes: vmrunner exec {name} -- ls"
        )
    line = shell_line(argv, workdir=workdir, environment=_environment(variables))
    with attached_guest(name, forwards=True) as (guest, deadline):
        return run_session(guest, line, tty=tty, stdin=0, stdout=1, stderr=2, deadline=deadline)


def _environment(variables: tuple[str, ...]) -> dict[str, str]:
    environment = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise UsageError(f"`--env {variable}` is not of the form KEY=VALUE")
        environment[name] = value
    return environment

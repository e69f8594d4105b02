"""The command line: the verbs, and the only code that prints or exits.

Each verb is a module of its own, imported when it is called, so that `vmrunner --version` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from vmrunner import __version__
from vmrunner.errors import EXIT_BUG, HostError, Interrupted, VmrunnerError, exit_code_of

_VERBS = {
    "test": "Run a workspace's tests in a virtual machine.",
    "up": "Start a VM that stays, or start it again.",
    "stop": "Shut a VM down and keep its disk.",
    "reset": "Make a VM as clean as it was when it was new.",
    "rm": "Remove VMs, with all they have.",
    "ps": "List the VMs: what runs, on what, using how much.",
    "exec": "Run a program in a running VM, and end as it ends.",
    "ssh": "Open a login shell in a running VM.",
    "console": "Sit down at the serial console of a running VM.",
    "cp": "Copy files into a running VM, or out of it.",
    "logs": "Show what a VM's console, its last test run and QEMU printed.",
    "tune": "Change a VM while it runs.",
    "stats": "Show what a running VM uses.",
    "snapshot": "Save, restore, list and remove named states of a VM.",
    "plan": "Show what would be run: the settings and QEMU's argument list.",
    "image": "Build, list, show and prune images.",
    "doctor": "Check this computer, and say what to do about what is missing.",
    "schema": "Print the JSON Schema of vmrunner.yaml.",
    "completion": "Print the completion script for a shell.",
}

_PERMISSION = (
    "vmrunner keeps its files below XDG_STATE_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR; are they yours?"
)
_PLACE = "this path cannot be had; XDG_CACHE_HOME, XDG_STATE_HOME and XDG_RUNTIME_DIR say where vmrunner keeps things"
_FAULTS_OF_THE_HOST = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.ENOTDIR: _PLACE,
    errno.ELOOP: _PLACE,
    errno.ENAMETOOLONG: _PLACE,
    errno.ENOSPC: "free some disk space; `vmrunner image prune` removes what is not used",
    errno.EDQUOT: "free some disk space; `vmrunner image prune` removes what is not used",
}

COMPLETION_VARIABLE = "_VMRUNNER_COMPLETE"
"""Set by the scripts that `vmrunner completion` prints."""


class _Verbs(click.Group):
    """The verbs, in the order a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb's module."""
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"vmrunner.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 -- click's signature
        """Name the nearest verb where there is none of that name."""
        import difflib

        near = difflib.get_close_matches(args[0], _VERBS, n=1)
        if args[0] not in _VERBS and near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", message="vmrunner %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Show each command run, on stderr.")
def group(verbose: bool) -> None:
    """Run impure Rust test suites inside QEMU virtual machines.

    \b
    Example:
      vmrunner test path/to/workspace -- --retries 2
    """
    if verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")
        for noisy in ("qemu.qmp", "asyncio", "paramiko"):
            logging.getLogger(noisy).setLevel(logging.WARNING)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every way a command can end comes together here."""
    try:
        result = _invoke(list(sys.argv[1:] if argv is None else argv))
    except BaseException as error:
        return _code_of(error)
    return result if isinstance(result, int) else 0


def _invoke(words: list[str]) -> Any:  # noqa: ANN401 -- whatever a verb returns
    """Run a verb. Not by `group.main`, which turns signals and broken pipes into exceptions that say less."""
    if COMPLETION_VARIABLE in os.environ:
        return group.main(args=words, prog_name="vmrunner", complete_var=COMPLETION_VARIABLE)
    with group.make_context("vmrunner", words) as context:
        return group.invoke(context)


def _code_of(error: BaseException) -> int:
    """Tell the person what went wrong, as far as it is news, and turn it into an exit code."""
    match error:
        case VmrunnerError():
            show_error(error)
            code = exit_code_of(error)
        case Interrupted():
            code = error.exit_code
        case KeyboardInterrupt() | click.Abort():
            code = 130
        case click.exceptions.Exit():
            code = error.exit_code
        case click.ClickException():
            error.show()
            code = error.exit_code
        case BrokenPipeError():
            # Whoever read our output has gone; keep the interpreter from failing once more when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 141
        case OSError() if error.errno in _FAULTS_OF_THE_HOST:
            show_error(_as_host_error(error, _FAULTS_OF_THE_HOST[error.errno]))
            code = HostError.exit_code
        case Exception():
            code = _show_bug(error)
        case _:
            raise error
    return code


def _as_host_error(error: OSError, hint: str) -> HostError:
    place = f"{error.filename}: " if error.filename else ""
    return HostError(f"{place}{error.strerror}", hint=hint)


def main() -> NoReturn:
    """The console script."""
    sys.exit(run())


def show_error(error: VmrunnerError) -> None:
    """Print an error for a person: what happened, the facts, and what to do."""
    color = use_color(sys.stderr)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=color)
    click.echo(error.message, err=True, color=color)
    if error.details:
        click.echo(
            "".join(f"  {line}\n" for line in error.details.splitlines()), nl=False, err=True, color=color
        )
    if error.hint:
        click.secho("hint: ", fg="cyan", bold=True, nl=False, err=True, color=color)
        click.echo(error.hint, err=True, color=color)


def use_color(stream: Any) -> bool:  # noqa: ANN401 -- any text stream
    """Whether `stream` takes colours: a terminal, unless NO_COLOR; FORCE_COLOR or CLICOLOR_FORCE where it is none."""
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") not in {"", "0"} for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _show_bug(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    click.echo(f"\nThis is a bug in vmrunner {__version__}. Please report it with the lines above.", err=True)
    return EXIT_BUG

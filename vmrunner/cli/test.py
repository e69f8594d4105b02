"""`vmrunner test`: the main verb."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from vmrunner.cli import show_error, use_color
from vmrunner.cli.dashes import AFTER_DASHES, CommandWithRest
from vmrunner.cli.options import config_options
from vmrunner.cli.progress import Lines, open_display
from vmrunner.config.load import load_config
from vmrunner.config.option import SHAPE
from vmrunner.config.rows import rows_of
from vmrunner.errors import exit_code_of
from vmrunner.host.signals import interruptible
from vmrunner.run.execute import TestRequest, run_tests
from vmrunner.run.report import Report
from vmrunner.run.vm_seat import VmChoice


@click.command("test", cls=CommandWithRest, rest="NEXTEST ARGS")
@click.argument("workspace", type=click.Path(path_type=Path), default=".")
@config_options(*SHAPE, "guest", "archive", "run")
@click.option("--vm", metavar="NAME", help="Run in this long-lived VM, as it is, instead of in a fresh one.")
@click.option("--reset", is_flag=True, help="With --vm: make the VM clean first.")
@click.option("--no-wait", is_flag=True, help="With --vm: fail at once where another run has the VM.")
@click.pass_context
def command(
    context: click.Context,
    workspace: Path,
    config_file: Path | None,
    flags: Mapping[str, object],
    vm: str | None,
    *,
    reset: bool,
    no_wait: bool,
) -> int:
    """Run WORKSPACE's tests in a fresh virtual machine and pass nextest's exit code on.

    The archive is built with `cargo nextest archive` unless --archive names one. What follows -- goes to nextest.

    \b
    Examples:
      vmrunner test
      vmrunner test path/to/workspace --memory 4G -- --retries 2 -E 'test(dns)'
      vmrunner test --archive ci/archive.tar.zst --format json
      vmrunner test --shards 4 --cpus 1
      vmrunner test --vm dev --reset
      vmrunner test --keep on-failure
    """
    chosen = _chosen_vm(vm, flags, reset=reset, no_wait=no_wait)
    loaded = load_config(directory=workspace, file=config_file, environ=os.environ, flags=flags)
    as_json = loaded.config.format == "json"
    request = TestRequest(
        config=loaded.config,
        workspace=workspace,
        nextest_args=tuple(context.meta.get(AFTER_DASHES, ())),
        environment=loaded.config.guest_env(os.environ),
        color=use_color(sys.stderr),
        vm=chosen,
    )
    display = open_display(stdout=sys.stderr.buffer if as_json else sys.stdout.buffer)
    with interruptible(), contextlib.closing(display):
        report = run_tests(request, emit=display)
        if as_json:
            click.echo(json.dumps(report.as_json(), indent=2))
        return _conclude(report, display)


def _chosen_vm(
    name: str | None, flags: Mapping[str, object], *, reset: bool, no_wait: bool
) -> VmChoice | None:
    """The long-lived VM to run in, None for fresh ones. Raises UsageError where other flags do not go with that."""
    if name is None:
        if reset or no_wait:
            raise click.UsageError("--reset and --no-wait are for runs in a long-lived VM: name it with --vm")
        return None
    _refuse_shape(name, flags)
    return VmChoice(name, reset=reset, wait=not no_wait)


def _refuse_shape(vm: str, flags: Mapping[str, object]) -> None:
    """Flags that shape a machine say nothing to one that is there already; settings of the project's file may stay."""
    shaping = [row.flag for row in rows_of(*SHAPE) if row.field in flags] + [
        row.flag for row in rows_of("guest") if row.field in flags and row.field in {"hostname", "machine_id"}
    ]
    if shaping:
        raise click.UsageError(
            f"{', '.join(shaping)} cannot be given with --vm: the VM {vm!r} is what it was made as by `vmrunner up`"
        )


def _conclude(report: Report, display: Lines) -> int:
    """Say in one line what came of it, or print the error, and return the exit code."""
    display.close()
    if report.error:
        show_error(report.error)
        click.echo(f"logs: {report.run.path}", err=True)
        return exit_code_of(report.error)
    assert report.exit_code is not None
    if report.bottleneck:
        click.echo(f"bottleneck: {report.bottleneck}", err=True)
    click.secho(
        _verdict_line(report),
        fg="green" if report.outcome == "passed" else "red",
        err=True,
        color=use_color(sys.stderr),
    )
    click.echo(f"report: {report.run.report}", err=True)
    return report.exit_code


def _verdict_line(report: Report) -> str:
    counts = ", ".join(
        f"{number} {name}" for name, number in report.counts().items() if number or name == "passed"
    )
    return f"{report.outcome}: {counts}{_how_it_started(report)}"


def _how_it_started(report: Report) -> str:
    seat = report.seat
    if seat is None:
        return ""
    if seat.start == "reused":
        return f" (in the VM {seat.facts.name} under {seat.facts.accelerator})"
    after = "" if report.boot_seconds is None else f" in {report.boot_seconds:.1f} s"
    return f" ({seat.start}{after} under {seat.facts.accelerator})"

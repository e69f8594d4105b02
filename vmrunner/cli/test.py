"""`vmrunner test`: the main verb."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vmrunner.cli import show_error, use_color
from vmrunner.cli.dashes import AFTER_DASHES, CommandWithRest
from vmrunner.cli.options import config_options
from vmrunner.cli.progress import Lines, open_display
from vmrunner.config.load import load_config
from vmrunner.errors import exit_code_of
from vmrunner.host.signals import interruptible
from vmrunner.run.execute import TestRequest, run_tests
from vmrunner.run.report import Report


@click.command("test", cls=CommandWithRest, rest="NEXTEST ARGS")
@click.argument("workspace", type=click.Path(path_type=Path), default=".")
@config_options("image", "machine", "guest", "archive", "run")
@click.pass_context
def command(
    context: click.Context, workspace: Path, config_file: Path | None, flags: Mapping[str, object]
) -> int:
    """Run WORKSPACE's tests in a fresh virtual machine and pass nextest's exit code on.

    The archive is built with `cargo nextest archive` unless --archive names one. What follows -- goes to nextest.

    \b
    Examples:
      vmrunner test
      vmrunner test path/to/workspace --memory 4G -- --retries 2 -E 'test(dns)'
      vmrunner test --archive ci/archive.tar.zst --format json
    """
    loaded = load_config(directory=workspace, file=config_file, environ=os.environ, flags=flags)
    as_json = loaded.config.format == "json"
    request = TestRequest(
        config=loaded.config,
        workspace=workspace,
        nextest_args=tuple(context.meta.get(AFTER_DASHES, ())),
        environment=loaded.config.guest_env(os.environ),
        color=use_color(sys.stderr),
    )
    display = open_display(stdout=sys.stderr.buffer if as_json else sys.stdout.buffer)
    with interruptible(), contextlib.closing(display):
        report = run_tests(request, emit=display)
        if as_json:
            click.echo(json.dumps(report.as_json(), indent=2))
        return _conclude(report, display)


def _conclude(report: Report, display: Lines) -> int:
    """Say in one line what came of it, or print the error, and return the exit code."""
    display.close()
    if report.error:
        show_error(report.error)
        click.echo(f"logs: {report.run.path}", err=True)
        return exit_code_of(report.error)
    assert report.exit_code is not None
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
    machine: Any = report.machine
    booted = (
        f" (booted in {report.boot_seconds:.1f} s under {machine.plan.accelerator})"
        if report.boot_seconds
        else ""
    )
    return f"{report.outcome}: {counts}{booted}"

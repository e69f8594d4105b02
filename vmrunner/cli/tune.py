"""`vmrunner tune`: change a VM while it runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from vmrunner.cli.options import config_options
from vmrunner.cli.progress import open_display
from vmrunner.cli.sections import SectionedCommand
from vmrunner.cli.table import print_table
from vmrunner.config.layer import raise_problems
from vmrunner.config.option import SHAPE
from vmrunner.config.text_layers import flag_layer
from vmrunner.errors import GuestError
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.machine.tuning.change import Change
from vmrunner.run.vm_tuning import TuneRequest, tune_vm

_GROUPS = tuple(group for group in SHAPE if group != "image")
_SECONDS = 300.0


@click.command("tune", cls=SectionedCommand)
@click.argument("name")
@config_options(*_GROUPS, leave_out=("size",))
@click.option(
    "--link", type=click.Choice(["up", "down"]), help="The network card's cable: plugged in, or pulled."
)
@click.option("--persist", is_flag=True, help="Keep the changes for the VM's next start.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    config_file: Path | None,
    flags: Mapping[str, object],
    link: Literal["up", "down"] | None,
    *,
    persist: bool,
    as_json: bool,
) -> int:
    """Change the VM NAME while it runs, and print what was read back from QEMU, the guest and this host.

    Live are --cpus, --memory, --disk, --disk-limit (in the place of all limits; bps=0 for none), --net-rate, --net-delay,
    --link, --cpu-pin, --cpu-weight, --cpu-quota and --nice. The others take a restart, and are kept for that with
    --persist. Exit code 23: the guest did not follow all the way.

    \b
    Examples:
      vmrunner tune dev --cpus 1 --memory 1G
      vmrunner tune dev --disk-limit bps=4M --disk-limit iops=100
      vmrunner tune dev --net-delay 100ms --net-rate 1mbit
    """
    layer = flag_layer(flags)
    wanted = layer.check()
    raise_problems(layer.problems)
    assert wanted is not None
    request = TuneRequest(wanted, frozenset(wanted.model_fields_set), link, persist=persist)
    with interruptible(), contextlib.closing(open_display(stdout=sys.stderr.buffer)) as display:
        changes = tune_vm(name, request, emit=display, deadline=Deadline.after(_SECONDS))
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes], indent=2))
    else:
        _show(changes)
    if persist:
        click.echo(f"kept for the next start of {name}", err=True)
    return 0 if all(change.complete for change in changes) else GuestError.exit_code


def _show(changes: list[Change]) -> None:
    if changes:
        rows = [(one.setting, one.before or "-", one.after, one.seen_by, one.remark) for one in changes]
        print_table([("SETTING", "BEFORE", "AFTER", "SEEN BY", ""), *rows])

"""`vmrunner snapshot`: named states of a VM, memory and disk."""

from __future__ import annotations

import contextlib
import json
import sys

import click

from vmrunner.cli.progress import open_display
from vmrunner.cli.table import moment, print_table
from vmrunner.config.units import Size
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.machine import registry, snapshots
from vmrunner.machine.snapshots import Snapshot
from vmrunner.run import vm_snapshots

_SECONDS = 600.0


@click.group("snapshot")
def command() -> None:
    """Save, restore, list and remove named states of a VM."""


@command.command("save")
@click.argument("name")
@click.argument("tag", required=False)
@click.option("-f", "--force", is_flag=True, help="Replace a snapshot of the same TAG.")
def save(name: str, tag: str | None, force: bool) -> None:
    """Save memory and disk of the running VM NAME as TAG, and print the TAG; without one it is the present time.

    The guest stands still meanwhile, and then goes on.

    \b
    Example:
      vmrunner snapshot save db loaded
    """
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        saved = vm_snapshots.save_snapshot(
            name, tag, force=force, emit=display, deadline=Deadline.after(_SECONDS)
        )
    click.echo(saved.record.tag)


@command.command("restore")
@click.argument("name")
@click.argument("tag", required=False)
def restore(name: str, tag: str | None) -> None:
    """Make the VM NAME what it was at TAG, without one at its newest snapshot; what it is now is lost.

    Programs that ran then go on running. It does not matter whether the VM runs now.

    \b
    Example:
      vmrunner snapshot restore db loaded
    """
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        vm_snapshots.restore_snapshot(name, tag, emit=display, deadline=Deadline.after(_SECONDS))


@command.command("list")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(name: str, as_json: bool) -> None:
    """List the snapshots of the VM NAME, the oldest first.

    \b
    Example:
      vmrunner snapshot list db
    """
    registry.find(name)
    found = snapshots.list_snapshots(name)
    if as_json:
        click.echo(json.dumps([_as_json(snapshot) for snapshot in found], indent=2))
        return
    rows = [(s.record.tag, moment(s.record.created), Size(s.size).for_people()) for s in found]
    print_table([("TAG", "CREATED", "SIZE"), *rows])


@command.command("rm")
@click.argument("name")
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
def rm(name: str, tags: tuple[str, ...]) -> None:
    """Remove snapshots of the VM NAME.

    \b
    Example:
      vmrunner snapshot rm db loaded
    """
    display = open_display(stdout=sys.stderr.buffer)
    with contextlib.closing(display):
        for tag in tags:
            vm_snapshots.remove_snapshot(name, tag, emit=display)


def _as_json(snapshot: Snapshot) -> dict[str, object]:
    record = snapshot.record
    return {
        "tag": record.tag,
        "created": record.created,
        "size": snapshot.size,
        "paused_seconds": record.paused_seconds,
        "directory": str(snapshot.directory),
    }

"""`vmrunner ps`: the long-lived VMs there are."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import click

from vmrunner.cli.progress import open_display
from vmrunner.cli.table import age, print_table
from vmrunner.config.network_values import Forward
from vmrunner.config.units import Size
from vmrunner.machine import registry
from vmrunner.machine.vm_record import VmRecord
from vmrunner.run.vm_list import VmListing, list_vms

_HEAD = ("NAME", "STATE", "AGE", "IMAGE", "ACCEL", "CPUS", "MEMORY", "SSH", "FORWARDS", "START", "HELD BY")


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> None:
    """List the long-lived VMs: what state each is in, what it runs on, what it uses.

    AGE counts from when the VM was made, MEMORY is what QEMU takes of this computer's, and what the guest has. STATE is
    running, stopped, died (QEMU ended without `vmrunner stop`) or damaged.

    \b
    Example:
      vmrunner ps
    """
    with contextlib.closing(open_display(stdout=sys.stderr.buffer)) as display:
        registry.reap_abandoned(display)
    listings = list_vms()
    if as_json:
        click.echo(json.dumps([_as_json(listing) for listing in listings], indent=2))
        return
    print_table([_HEAD, *map(_row, listings)])
    for listing in listings:
        if listing.end:
            click.echo(f"{listing.name}: {listing.end}", err=True)


def _row(listing: VmListing) -> tuple[str, ...]:
    record = listing.record
    if record is None:
        return (listing.name, listing.state, *("-",) * (len(_HEAD) - 2))
    used = "-" if listing.memory_used is None else Size(listing.memory_used).for_people()
    running = listing.state == "running"
    return (
        listing.name,
        listing.state,
        age(record.created),
        f"{record.image} {record.image_digest[:12]}",
        record.plan.accelerator,
        str(record.plan.cpus),
        f"{used} / {record.plan.memory}",
        f"127.0.0.1:{record.ssh_port}" if running else "-",
        _forwards(record) if running else "-",
        record.start if running else "-",
        f"{listing.holder.run_id} ({listing.holder.pid})" if listing.holder else "-",
    )


def _forwards(record: VmRecord) -> str:
    """As docker writes them."""
    return ", ".join(Forward.parse(text).arrow for text in record.forwards) or "-"


def _as_json(listing: VmListing) -> dict[str, Any]:
    record, holder = listing.record, listing.holder
    document: dict[str, Any] = {"name": listing.name, "state": listing.state, "end": listing.end}
    if record is None:
        return document
    running = listing.state == "running"
    return {
        **document,
        "created": record.created,
        "started_at": record.started_at if running else None,
        "start": record.start if running else None,
        "pid": record.process.pid if running and record.process else None,
        "image": {
            "name": record.image,
            "digest": record.image_digest,
            "directory": str(record.image_directory),
        },
        "accelerator": record.plan.accelerator,
        "cpu_model": record.plan.cpu_model,
        "qemu": record.qemu_version,
        "cpus": record.plan.cpus,
        "memory": int(record.plan.memory),
        "memory_used": listing.memory_used,
        "disk": int(record.plan.disk.size),
        "network": record.plan.network,
        "ports": {"ssh": record.ssh_port, "forwards": list(record.forwards)} if running else {},
        "held_by": vars(holder) if holder else None,
        "last_run": str(listing.last_run) if listing.last_run else None,
        "directory": str(record.directory.path),
    }

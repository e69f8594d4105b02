"""`vmrunner stats`: what a running VM uses."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from vmrunner.cli.table import print_table
from vmrunner.config.units import Duration, Size
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.run.vm_stats import VmStats, read_stats

_SECONDS = 60.0


@click.command("stats")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document; with --watch one a line.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
def command(name: str, *, as_json: bool, watch: bool) -> None:
    """Show what the VM NAME uses: CPU time and memory of this host, memory of the guest, disk and network.

    CPU is in percent of one of this host's CPUs. Rates are those of the second in which it was looked.

    \b
    Example:
      vmrunner stats dev --watch
    """
    with interruptible():
        while True:
            stats = read_stats(name, deadline=Deadline.after(_SECONDS))
            if as_json:
                click.echo(json.dumps(stats.as_json(), indent=None if watch else 2))
            else:
                _show(stats)
            if not watch:
                return
            click.echo("", nl=not as_json)


def _show(stats: VmStats) -> None:
    usage, memory = stats.usage, stats.usage.memory
    vcpus = "  ".join(f"vCPU {vcpu}: {value:.0f} %" for vcpu, value in stats.vcpu_percent.items())
    rows = [
        ("vm", f"{stats.record.name}, up {Duration(round(stats.uptime))} under {stats.record.plan.accelerator}"),
        ("cpu", f"{stats.cpu_percent:.0f} %  {vcpus}".rstrip()),
        ("host memory", f"resident {_size(memory.rss)}, proportional {_size(memory.pss)}, "
                        f"its own {_size(memory.private)}, shared {_size(memory.shared)}"),
        ("guest memory", _guest_memory(usage.balloon, usage.guest_memory)),
        ("disk", _traffic(usage.disk, stats.disk_rates, "rd_bytes", "read", "wr_bytes", "written")),
        ("network", _traffic(usage.network, stats.network_rates, "rx_bytes", "received", "tx_bytes", "sent")),
    ]  # fmt: skip
    print_table(rows)
    if stats.remark:
        click.echo(stats.remark, err=True)


def _guest_memory(actual: int | None, known: Mapping[str, int] | None) -> str:
    if actual is None:
        return "unknown (no balloon)"
    words = [f"has {_size(actual)}"]
    for name, label in (
        ("available-memory", "available"),
        ("free-memory", "free"),
        ("swap-out", "swapped out"),
    ):
        if known and name in known:
            words.append(f"{label} {_size(known[name])}")
    return ", ".join(words)


def _traffic(counters: Mapping[str, int] | None, rates: Mapping[str, float] | None, *names: str) -> str:
    if counters is None:
        return "unknown"
    parts = []
    for name, label in zip(names[::2], names[1::2], strict=True):
        rate = f" ({_size(round(rates[name]))}/s)" if rates else ""
        parts.append(f"{label} {_size(counters[name])}{rate}")
    return ", ".join(parts)


def _size(value: int | None) -> str:
    return "?" if value is None else Size(value).for_people()

"""Checks and what they found: for people, one line each with what belongs to it indented below; or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import click

from vmrunner.host.doctor import Check, Status

_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_checks(checks: tuple[Check, ...], *, as_json: bool, of: Mapping[str, str] | None = None) -> int:
    """Print them on standard output and return how many are problems. `of` goes into the JSON, before them."""
    problems = sum(check.status == "problem" for check in checks)
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        click.echo(json.dumps({**(of or {}), "checks": found, "problems": problems}, indent=2))
    else:
        _show(checks)
    return problems


def _show(checks: tuple[Check, ...]) -> None:
    """With colours where the terminal has them."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(len(check.name) for check in checks)
    margin = " " * (len("problem") + width + 4)
    for check in checks:
        first, *rest = check.found.splitlines() or [""]
        line = Text()
        line.append(f"{check.status:<7}", style=_STYLES[check.status])
        line.append(f"  {check.name:<{width}}  {first}")
        for more in rest:
            line.append(f"\n{margin}{more}", style="dim")
        if check.advice:
            line.append(f"\n{margin}→ {check.advice}", style="cyan")
        console.print(line, soft_wrap=True)

"""Checks and what they found, for people: one line each, what belongs to it indented below."""

from __future__ import annotations

from vmrunner.host.doctor import Check, Status

_STYLES: dict[Status, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_checks(checks: tuple[Check, ...]) -> None:
    """Print them on standard output, with colours where the terminal has them."""
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

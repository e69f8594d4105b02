"""Commands that hand on what follows `--`."""

from __future__ import annotations

from typing import Any

import click

from vmrunner.cli.sections import SectionedCommand

AFTER_DASHES = "vmrunner.after_dashes"
"""Key in the context's `meta` under which the words after `--` lie."""


class CommandWithRest(SectionedCommand):
    """A command whose words after the first `--` are not its own; `rest` names them in the usage line.

    click would take them for positional arguments, so that `vmrunner test -- -E x` would have a workspace `-E`.
    """

    def __init__(self, *args: Any, rest: str, **kwargs: Any) -> None:  # noqa: ANN401 -- click's signature
        super().__init__(*args, **kwargs)
        self._rest = rest

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the words after `--` aside."""
        if "--" in args:
            position = args.index("--")
            ctx.meta[AFTER_DASHES] = tuple(args[position + 1 :])
            args = args[:position]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the rest in the usage line."""
        return [*super().collect_usage_pieces(ctx), f"[-- {self._rest}]"]

"""Help in sections: a command's own options first, then the settings by their groups."""

from __future__ import annotations

import click

_OWN = "Options"
_TITLES = {"cpu": "CPU"}


class SectionedCommand(click.Command):
    """A command whose settings are listed by group, in the order in which the groups come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each section."""
        sections: dict[str, list[tuple[str, str]]] = {_OWN: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                sections.setdefault(_section(param), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _section(param: click.Parameter) -> str:
    """By the setting that its type knows (`cli.options.RowType`), which is not imported for those that have none."""
    row = getattr(param.type, "row", None)
    if row is None:
        return _OWN
    group: str = row.option.group
    return f"{_TITLES.get(group, group.capitalize())} settings"

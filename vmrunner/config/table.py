"""The option table of README.md, generated from the rows: `python -m vmrunner.config.table README.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from vmrunner.config.rows import Row, all_rows

BEGIN = "<!-- options:begin -->"
END = "<!-- options:end -->"

_STRENGTH = (
    "A flag beats a variable, a variable beats `vmrunner.yaml`, and that beats the default. A list replaces the "
    "weaker one. Mappings merge: `env` by variable, `hosts` by host name. A variable that holds a list is split as "
    "a shell would; `VMRUNNER_HOSTS` is `name=address,name=address`. An empty variable, like a key without a value, "
    "sets nothing. Paths in the file count from its directory."
)
_HEAD = ("Key", "Flag", "Variable", "Default", "What it is")


def option_table() -> str:
    """The Markdown table of all options, one line each, and how their sources combine; ends in a newline."""
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_cells, all_rows())]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"{table}\n{_STRENGTH}\n"


def with_option_table(text: str) -> str:
    """`text` with the current table between its markers; raises ValueError where it lacks them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{option_table()}{END}{after}"


def _cells(row: Row) -> tuple[str, ...]:
    flag = f"`{row.flag} {row.option.metavar}`"
    if row.kind != "value":
        flag += " (repeatable)"
    return (
        f"`{row.key}`",
        flag,
        f"`{row.variable}`",
        f"`{row.default}`" if row.default else "",
        row.option.help.replace("|", r"\|"),
    )


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(with_option_table(readme.read_text()))

"""Config's rows as click options. Importing this costs pydantic (0.1 s), so verbs import it, the group does not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from vmrunner.config.option import Group
from vmrunner.config.rows import Row, all_rows
from vmrunner.config.text_layers import FILE_FLAG, FILE_VARIABLE
from vmrunner.config.yaml_file import FILE_NAME

OF_TEST_RUNS = ("shards", "keep", "phase_timeouts", "log_limit", "output_limit", "format")
"""The fields of the group `run` that mean nothing where no tests are run."""


class RowType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """Any text: `load_config` checks it, so that a flag's error reads like that of a file's line.

    A shell completes the row's choices, and files where the row takes a path.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self.name = row.option.metavar

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words that may follow the flag."""
        words = [CompletionItem(word) for word in self.row.choices if word.startswith(incomplete)]
        if self.row.is_path and not words:
            # "file" is click's word for "let the shell complete paths".
            words.append(CompletionItem(incomplete, type="file"))
        return words


def config_options(
    *groups: Group, leave_out: Collection[str] = (), also: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command `--config` and the flags of `groups`, without those of the fields in `leave_out`, with those in `also`.

    The command gets `config_file` (a Path or None) and `flags` (the given ones only, by field name, as text or a
    tuple of texts): what `load_config` takes.
    """
    rows = tuple(
        row
        for row in all_rows()
        if row.field in also or (row.option.group in groups and row.field not in leave_out)
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collect(*args: Any, **parameters: Any) -> Any:  # noqa: ANN401 -- the command's own
            given = {row.field: parameters.pop(_parameter(row)) for row in rows}
            flags = {field: value for field, value in given.items() if value not in (None, ())}
            return command(*args, flags=flags, **parameters)

        decorated: Callable[..., Any] = collect
        for row in reversed(rows):
            decorated = _option(row)(decorated)
        return _file_option()(decorated)

    return decorate


def _parameter(row: Row) -> str:
    """A name that no parameter of the command itself has."""
    return f"config_{row.field}"


def _option(row: Row) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        row.flag,
        _parameter(row),
        type=RowType(row),
        metavar=row.option.metavar,
        multiple=row.kind != "value",
        default=None,
        help=_help(row),
    )


def _help(row: Row) -> str:
    facts = [f"default: {row.default}"] if row.default else []
    if row.kind != "value":
        facts.append("repeatable")
    facts.append(f"env: {row.variable}")
    text = row.option.help
    return f"{text[:1].upper()}{text[1:]}.  [{'; '.join(facts)}]"


def _file_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        FILE_FLAG,
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Read FILE in place of the workspace's {FILE_NAME}.  [env: {FILE_VARIABLE}]",
    )

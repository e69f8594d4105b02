"""What follows `--` is handed on as it is."""

from __future__ import annotations

import click
import pytest

from vmrunner.cli.dashes import AFTER_DASHES, CommandWithRest

Seen = tuple[str, bool, tuple[str, ...] | None]


def parse(*words: str) -> Seen:
    """The workspace, the flag and the rest that a command like `vmrunner test` sees."""
    seen: list[Seen] = []

    @click.command("test", cls=CommandWithRest, rest="NEXTEST ARGS")
    @click.argument("workspace", default=".")
    @click.option("--flag", is_flag=True)
    @click.pass_context
    def command(context: click.Context, workspace: str, flag: bool) -> None:
        seen.append((workspace, flag, context.meta.get(AFTER_DASHES)))

    command.main(list(words), standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ([], (".", False, None)),
        (["ws"], ("ws", False, None)),
        (["--"], (".", False, ())),
        (["ws", "--"], ("ws", False, ())),
        (["--", "-E", "test(a)"], (".", False, ("-E", "test(a)"))),
        (["ws", "--", "ws2", "--flag"], ("ws", False, ("ws2", "--flag"))),
        (["--flag", "ws", "--", "a", "--", "b"], ("ws", True, ("a", "--", "b"))),
        (["--", "--help"], (".", False, ("--help",))),
    ],
)
def test_words_after_the_first_dashes_are_set_aside(words: list[str], seen: Seen) -> None:
    assert parse(*words) == seen


def test_without_dashes_a_foreign_flag_is_an_error() -> None:
    with pytest.raises(click.UsageError):
        parse("-E", "test(a)")


def test_the_usage_line_shows_the_rest() -> None:
    command = CommandWithRest("test", rest="NEXTEST ARGS", params=[click.Argument(["workspace"])])
    with click.Context(command, info_name="vmrunner test") as context:
        assert command.get_usage(context) == "Usage: vmrunner test [OPTIONS] WORKSPACE [-- NEXTEST ARGS]"

"""`vmrunner completion`: what a shell needs to complete vmrunner's verbs and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vmrunner.cli import COMPLETION_VARIABLE


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Example:
      vmrunner completion bash > ~/.local/share/bash-completion/completions/vmrunner
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(context.find_root().command, {}, "vmrunner", COMPLETION_VARIABLE).source())

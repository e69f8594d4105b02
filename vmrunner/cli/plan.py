"""`vmrunner plan`: what would be run, without running it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vmrunner.cli.options import config_options
from vmrunner.cli.progress import open_display
from vmrunner.cli.sections import SectionedCommand
from vmrunner.config.load import Loaded, load_config
from vmrunner.config.option import SHAPE
from vmrunner.host.signals import interruptible
from vmrunner.run.preview import Preview, preview_run


@click.command("plan", cls=SectionedCommand)
@click.argument("workspace", type=click.Path(path_type=Path), default=".")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@config_options(*SHAPE, "guest", "archive", "run")
def command(workspace: Path, as_json: bool, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Show every setting with where it comes from, and the QEMU argument list that follows from them.

    Nothing is built or started. Paths that exist only while a run lasts are shown as <...>.

    \b
    Example:
      vmrunner plan --memory 4G
    """
    loaded = load_config(directory=workspace, file=config_file, environ=os.environ, flags=flags)
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        preview = preview_run(loaded.config, emit=display)
    if as_json:
        click.echo(json.dumps(_as_json(loaded, preview), indent=2))
    else:
        _show(loaded, preview)


def _as_json(loaded: Loaded, preview: Preview) -> dict[str, Any]:
    return {
        "settings": loaded.config.model_dump(mode="json", by_alias=False),
        "sources": dict(loaded.sources),
        "accelerator": {"kind": preview.accelerator.kind, "reason": preview.accelerator.reason},
        "image": {"built": preview.image_built, "directory": str(preview.image_directory)},
        "qemu": preview.arguments,
    }


def _show(loaded: Loaded, preview: Preview) -> None:
    values = loaded.config.model_dump(mode="json")
    width = max(map(len, values))
    for key, value in values.items():
        source = loaded.sources.get(key, loaded.sources.get(key.replace("_", "-"), "default"))
        click.echo(f"{key.replace('_', '-'):<{width}}  {_plain(value):<20} # {source}".rstrip())
    click.echo(f"\n# accelerator: {preview.accelerator.reason}")
    state = "" if preview.image_built else " (not built yet)"
    click.echo(f"# image: {preview.image_directory}{state}\n")
    click.echo(_wrapped(preview.arguments))


def _plain(value: object) -> str:
    if isinstance(value, list):
        return shlex.join(map(str, value)) or "-"
    return json.dumps(value) if isinstance(value, dict) else "-" if value is None else str(value)


def _wrapped(arguments: list[str]) -> str:
    """One option a line, ready to be pasted into a shell."""
    lines: list[str] = []
    for word in arguments:
        quoted = shlex.quote(word)
        if word.startswith("-") or not lines or not lines[-1].startswith("-"):
            lines.append(quoted)
        else:
            lines[-1] += f" {quoted}"
    return " \\\n  ".join(lines)

"""`vmrunner image`: build, list, show and prune images."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click

from vmrunner.cli.options import config_options
from vmrunner.cli.progress import open_display
from vmrunner.config.load import load_config
from vmrunner.config.units import Duration, Size
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.image import store
from vmrunner.image.manifest import Image, open_image
from vmrunner.image.resolve import resolve_image

_SHORT_DIGEST = 12


@click.group("image")
def command() -> None:
    """Build, list, show and prune images."""


@command.command("build")
@config_options("image", "run")
@click.pass_context
def build(context: click.Context, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Build the image that `vmrunner test` would use here, unless it is there already, and print its directory.

    \b
    Example:
      vmrunner image build --image debian --package postgresql
    """
    click.echo(_built(config_file, flags).directory)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(as_json: bool) -> None:
    """List the images of the store, the one used last first.

    \b
    Example:
      vmrunner image list
    """
    images = store.list_images()
    if as_json:
        click.echo(
            json.dumps([{**vars(image), "directory": str(image.directory)} for image in images], indent=2)
        )
        return
    rows = [("IMAGE", "DIGEST", "SIZE", "CREATED", "LAST USED")]
    rows += [
        (
            image.name,
            image.digest[:_SHORT_DIGEST],
            Size(image.size).for_people(),
            _day(image.created),
            _day(image.last_used),
        )
        for image in images
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@command.command("show")
@click.argument("digest", required=False)
@config_options("image", "run")
def show(digest: str | None, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Print the manifest of an image: the one with DIGEST, else the one that `vmrunner test` would use here.

    \b
    Example:
      vmrunner image show 4f1c
    """
    image = open_image(store.find(digest).directory) if digest else _built(config_file, flags)
    document = {"directory": str(image.directory), **image.manifest.model_dump(mode="json")}
    click.echo(json.dumps(document, indent=2))


@command.command("prune")
@click.option(
    "--unused-for", metavar="TIME", default="0s", show_default=True, help="Keep what was used since then."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(unused_for: str, dry_run: bool) -> None:
    """Remove images that no machine runs on, and what interrupted builds left.

    \b
    Example:
      vmrunner image prune --unused-for 168h --dry-run
    """
    try:
        age = Duration.parse(unused_for)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--unused-for") from error
    removed = store.prune(unused_for=age, dry_run=dry_run)
    for image in removed:
        click.echo(f"{image.name} {image.digest[:_SHORT_DIGEST]}")
    freed = Size(sum(image.size for image in removed)).for_people()
    click.echo(f"{'would free' if dry_run else 'freed'} {freed}", err=True)


def _built(config_file: Path | None, flags: Mapping[str, object]) -> Image:
    config = load_config(directory=Path.cwd(), file=config_file, environ=os.environ, flags=flags).config
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        return resolve_image(
            str(config.image), packages=config.packages, emit=display, deadline=Deadline.after(config.timeout)
        )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

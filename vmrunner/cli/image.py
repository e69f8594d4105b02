"""`vmrunner image`: build, verify, list, show and prune images, and the memory templates made of them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from vmrunner.cli.findings import show_checks
from vmrunner.cli.options import OF_TEST_RUNS, config_options
from vmrunner.cli.progress import open_display
from vmrunner.cli.sections import SectionedCommand
from vmrunner.cli.table import moment, print_table
from vmrunner.config.load import load_config
from vmrunner.config.option import SHAPE
from vmrunner.config.units import Duration, Size
from vmrunner.errors import ImageError
from vmrunner.host.deadline import Deadline
from vmrunner.host.signals import interruptible
from vmrunner.image import store
from vmrunner.image.manifest import Image, open_image
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import resolve_image
from vmrunner.image.store import StoredImage
from vmrunner.machine import registry, templates
from vmrunner.machine.templates import StoredTemplate

_SHORT_DIGEST = 12
_TEMPLATE_FACTS = {"accelerator", "qemu_version", "cpus", "memory"}


@click.group("image")
def command() -> None:
    """Build, verify, list, show and prune images."""


@command.command("build", cls=SectionedCommand)
@config_options("image", "run")
@click.pass_context
def build(context: click.Context, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Build the image that `vmrunner test` would use here, unless it is there already, and print its directory.

    \b
    Example:
      vmrunner image build --image debian --package postgresql
    """
    click.echo(_built(config_file, flags, fresh=True).directory)


@command.command("verify", cls=SectionedCommand)
@config_options(*SHAPE, "run", leave_out=("start", *OF_TEST_RUNS))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def verify(
    context: click.Context, config_file: Path | None, flags: Mapping[str, object], as_json: bool
) -> None:
    """Boot an image and check each line of the guest contract. The exit code is 21 where it does not keep it.

    \b
    Example:
      vmrunner image verify --image ./my-image
    """
    from vmrunner.run.image_verification import verify_image

    config = load_config(directory=Path.cwd(), file=config_file, environ=os.environ, flags=flags).config
    display = open_display(stdout=sys.stderr.buffer)
    deadline = Deadline.after(config.timeout)
    with interruptible(), contextlib.closing(display):
        image = resolve_image(ImageRequest.of(config), emit=display, deadline=deadline)
        checks = verify_image(image, config, emit=display, deadline=deadline)
    problems = show_checks(checks, as_json=as_json, of={"image": str(image.directory)})
    context.exit(ImageError.exit_code if problems else 0)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(as_json: bool) -> None:
    """List the images of the store and the memory templates made of them, those used last first.

    \b
    Example:
      vmrunner image list
    """
    images, made = store.list_images(), templates.list_templates()
    if as_json:
        click.echo(json.dumps(_listed(images, made), indent=2))
        return
    print_table([("IMAGE", "DIGEST", "SIZE", "CREATED", "LAST USED"), *map(_image_row, images)])
    if made:
        click.echo()
        print_table([("TEMPLATE", "IMAGE", "CPUS", "MEMORY", "SIZE", "LAST USED"), *map(_template_row, made)])


def _image_row(image: StoredImage) -> tuple[str, ...]:
    return (
        image.name,
        image.digest[:_SHORT_DIGEST],
        Size(image.size).for_people(),
        moment(image.created),
        moment(image.last_used),
    )


def _template_row(template: StoredTemplate) -> tuple[str, ...]:
    record = template.record
    return (
        template.key[:_SHORT_DIGEST],
        f"{record.image} {record.image_directory.name[:_SHORT_DIGEST]}" if record else "?",
        str(record.cpus) if record else "?",
        str(Size(record.memory)) if record else "?",
        Size(template.size).for_people(),
        moment(template.last_used),
    )


def _listed(images: list[StoredImage], made: list[StoredTemplate]) -> list[dict[str, object]]:
    """Each image with its templates, then those of images that are not in the store."""
    by_image: dict[Path | None, list[dict[str, object]]] = {}
    for template in made:
        image = template.record.image_directory if template.record else None
        by_image.setdefault(image, []).append(_as_json(template))
    found: list[dict[str, object]] = [
        {**vars(image), "directory": str(image.directory), "templates": by_image.pop(image.directory, [])}
        for image in images
    ]
    for directory, templates_of_it in by_image.items():
        found.append(
            {
                "name": "?", "digest": None, "directory": str(directory) if directory else None, "size": 0,
                "created": None, "last_used": None, "templates": templates_of_it,
            }
        )  # fmt: skip
    return found


def _as_json(template: StoredTemplate) -> dict[str, object]:
    record = template.record
    return {
        "key": template.key,
        "directory": str(template.directory),
        "size": template.size,
        "last_used": template.last_used,
        **(record.model_dump(mode="json", include=_TEMPLATE_FACTS) if record else {}),
    }


@command.command("show", cls=SectionedCommand)
@click.argument("digest", required=False)
@config_options("image", "run")
def show(digest: str | None, config_file: Path | None, flags: Mapping[str, object]) -> None:
    """Print the manifest of an image: the one with DIGEST, else the one that `vmrunner test` would use here.

    \b
    Example:
      vmrunner image show 4f1c
    """
    image = open_image(store.find(digest).directory) if digest else _built(config_file, flags, fresh=False)
    document = {"directory": str(image.directory), **image.manifest.model_dump(mode="json")}
    click.echo(json.dumps(document, indent=2))


@command.command("prune")
@click.option(
    "--unused-for", metavar="TIME", default="0s", show_default=True, help="Keep what was used since then."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(unused_for: str, dry_run: bool) -> None:
    """Remove images and memory templates that no machine runs on and no VM needs, and what interrupted builds left.

    \b
    Example:
      vmrunner image prune --unused-for 168h --dry-run
    """
    try:
        age = Duration.parse(unused_for)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--unused-for") from error
    needed = registry.references()
    # Templates first: their machines hold the image too.
    made = templates.prune(keep_bytes=0, keep=needed, unused_for=age, dry_run=dry_run)
    removed = store.prune(unused_for=age, dry_run=dry_run, keep=needed)
    for template in made:
        click.echo(f"template {template.key[:_SHORT_DIGEST]}")
    for image in removed:
        click.echo(f"{image.name} {image.digest[:_SHORT_DIGEST]}")
    bytes_freed = sum(template.size for template in made) + sum(image.size for image in removed)
    freed = Size(bytes_freed).for_people()
    click.echo(f"{'would free' if dry_run else 'freed'} {freed}", err=True)


def _built(config_file: Path | None, flags: Mapping[str, object], *, fresh: bool) -> Image:
    config = load_config(directory=Path.cwd(), file=config_file, environ=os.environ, flags=flags).config
    display = open_display(stdout=sys.stderr.buffer)
    with interruptible(), contextlib.closing(display):
        deadline = Deadline.after(config.timeout)
        return resolve_image(ImageRequest.of(config), fresh=fresh, emit=display, deadline=deadline)

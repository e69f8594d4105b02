"""`vmrunner cp`: files into a running VM, and out of it."""

from __future__ import annotations

import contextlib
import re
import sys

import click

from vmrunner.cli.attaching import attached_guest
from vmrunner.cli.progress import open_display
from vmrunner.errors import UsageError

_IN_GUEST = re.compile(r"([^/:]+):(.*)", re.DOTALL)


@click.command("cp")
@click.argument("source")
@click.argument("destination")
def command(source: str, destination: str) -> None:
    """Copy a file or a directory into a VM, or out of it; NAME:PATH on one side names the VM.

    A directory as DESTINATION takes the copy inside; `SOURCE/.` stands for what is in SOURCE. Modes and times are
    kept, and symbolic links stay links. Relative paths in the guest start in root's home. A local path
    with a colon is written `./a:b`.

    \b
    Examples:
      vmrunner cp fixtures db:/srv/
      vmrunner cp db:/var/log/postgresql logs
    """
    from vmrunner.guest.copying import download, upload

    name, copies_in, here, there = _sides(source, destination)
    display = open_display(stdout=sys.stderr.buffer)
    with contextlib.closing(display), attached_guest(name) as (guest, deadline):
        if copies_in:
            upload(guest, here, there, emit=display, deadline=deadline)
        else:
            download(guest, there, here, emit=display, deadline=deadline)


def _sides(source: str, destination: str) -> tuple[str, bool, str, str]:
    """The VM, whether the copy goes into it, the path here and the path there."""
    from_guest, to_guest = _IN_GUEST.fullmatch(source), _IN_GUEST.fullmatch(destination)
    if to_guest and not from_guest:
        return to_guest[1], True, source, to_guest[2]
    if from_guest and not to_guest:
        return from_guest[1], False, destination, from_guest[2]
    raise UsageError(
        "both paths are in a VM" if from_guest else "neither path is in a VM",
        hint="write the one in the VM as NAME:PATH, and a local one with a colon as ./PATH",
    )

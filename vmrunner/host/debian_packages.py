"""Which Debian package has a library, asked of this computer where it is a Debian or one of its children."""

from __future__ import annotations

import shutil

from vmrunner.errors import VmrunnerError
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command

_SEARCH_SECONDS = 5.0


def package_with(library: str) -> str | None:
    """The package that `library` (`libpq.so.5`) is from on this computer; None where that is not known.

    Only for a better hint, so a dpkg that does not work is as good as none.
    """
    if shutil.which("dpkg-query") is None:
        return None
    try:
        found = run_command(
            ["dpkg-query", "--search", f"*/{library}"], deadline=Deadline.after(_SEARCH_SECONDS), check=False
        )
    except VmrunnerError:
        return None
    for line in found.stdout.splitlines():
        packages, colon, _ = line.partition(": ")
        if colon and not packages.startswith("diversion "):
            # `libpq5:amd64`, or several that share a file, separated by commas.
            return packages.split(",", 1)[0].split(":", 1)[0]
    return None

"""Whether the nextest that will run in a guest is new enough for a project and its archive.

An archive does not say which nextest made it. To what nextest writes for machines, fields are only ever added
(nexte.st/docs/stability), so an older one can read a newer one's archive; the same version is only what nextest advises
"for best results" (nexte.st/docs/ci-features/archiving).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vmrunner.errors import ArchiveError
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.arguments import has_flag

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_OVERRIDE = "--override-version-check"


def check_required(
    required: str | None, *, guest: GuestAbilities, arguments: Sequence[str], carried: bool
) -> None:
    """Raise ArchiveError where the project asks for a newer nextest than the one that will run in the guest.

    `arguments` are nextest's, for it has one that overrides this; `carried` says that it is this host's own.
    """
    if guest.nextest is None or required is None or has_flag(arguments, _OVERRIDE):
        return
    if not _is_older(guest.nextest, required):
        return
    whose = "this host's" if carried else f"that of the image `{guest.image}`"
    newer = "install a newer cargo-nextest here" if carried else "use an image with a newer cargo-nextest"
    raise ArchiveError(
        f"the project requires nextest {required} (`nextest-version`), but the guest runs {whose}, {guest.nextest}",
        hint=f"{newer}, or pass `-- {_OVERRIDE}`",
    )


def is_older_than_maker(guest: GuestAbilities, maker: str) -> bool:
    """Whether the guest's nextest is older than the one that made the archive."""
    return guest.nextest is not None and _is_older(guest.nextest, maker)


def _is_older(version: str, than: str) -> bool:
    """Whether it is older by its numbers; what cannot be read is left to nextest."""
    numbers = [_NUMBERS.match(text) for text in (version, than)]
    if numbers[0] is None or numbers[1] is None:
        return False
    left, right = (tuple(map(int, found[0].split("."))) for found in numbers if found)
    return left < right

"""How much a guest may write to its share in one run: it must not be able to fill this host's disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from vmrunner.config.units import Size
from vmrunner.errors import GuestError

_INTERVAL_SECONDS = 1.0
# Looking at a share with very many files takes long; no more than this part of the time goes into it.
_LOOKING_SHARE = 0.05


class OutputWatch:
    """Looks at a share from time to time; called often, it looks seldom."""

    def __init__(self, share: Path, limit: Size) -> None:
        self._share = share
        self._limit = limit
        self._next = 0.0

    def look(self) -> None:
        """Raises GuestError where the share takes more room on this host's disk than the limit."""
        began = time.monotonic()
        if began < self._next:
            return
        used = 0
        for size in _sizes(self._share):
            used += size
            if used > self._limit:
                raise GuestError(
                    f"the guest wrote more than {self._limit} to its share",
                    hint="is that what the tests should do? then give them more with `--output-limit`",
                    details=str(self._share),
                )
        took = time.monotonic() - began
        self._next = began + max(_INTERVAL_SECONDS, took / _LOOKING_SHARE)


def _sizes(directory: Path) -> Iterator[int]:
    """Bytes on disk of each file below, links not followed; what goes away meanwhile counts as nothing."""
    pending: list[str] = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except FileNotFoundError:
            continue

"""A log that somebody else writes, read as it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 20


class FollowedFile:
    """A file that may not be there yet, may grow, be cut short, or be replaced by another of the same name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._identity: tuple[int, int] | None = None

    def read(self) -> bytes:
        """What is new since the last time, at most a mebibyte; from the start where it was cut short or replaced."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                identity = (found.st_dev, found.st_ino)
                if identity != self._identity or found.st_size < self._position:
                    self._identity, self._position = identity, 0
                file.seek(self._position)
                data = file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b""
        self._position += len(data)
        return data

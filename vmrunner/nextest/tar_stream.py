"""Reading a `.tar.zst` from its beginning, with memory that does not depend on its content."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from vmrunner.errors import ArchiveError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 2048
"""Compressed bytes taken at a time: a hostile chunk of that size grows by some 100 MB at most."""

MAKE_ONE = "`cargo nextest archive --archive-file tests.tar.zst` makes a nextest archive"


class ZstdReader:
    """The decompressed bytes of a file, which also tells a whole file from one that was cut off.

    `taken` is the number of compressed bytes read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = bytearray()
        self.taken = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end; raises EOFError where the file ends inside a frame."""
        while len(self._ready) < size and self._fill():
            pass
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def drain(self) -> None:
        """Read to the end, so that a cut after the last member of the tar is found too."""
        while self.read(1 << 20):
            pass

    def _fill(self) -> bool:
        chunk = self._file.read(_CHUNK_BYTES)
        self.taken += len(chunk)
        if not chunk:
            if not self._frame.eof:
                raise EOFError
            return False
        while chunk:
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready += self._frame.decompress(chunk)
            chunk = self._frame.unused_data if self._frame.eof else b""
        return True


@contextmanager
def open_tar_stream(path: Path) -> Iterator[tuple[tarfile.TarFile, ZstdReader]]:
    """Open a `.tar.zst` for one pass from its beginning.

    Raises ArchiveError, also for what goes wrong while the block reads: not there, not readable, not zstd,
    not tar, cut off.
    """
    with _open(path) as file:
        magic = file.read(len(_ZSTD_MAGIC))
        file.seek(0)
        if magic != _ZSTD_MAGIC:
            what = "it is not compressed with zstd" if magic else "it is empty"
            raise ArchiveError(f"{path} is not a nextest archive: {what}", hint=MAKE_ONE)
        reader = ZstdReader(file)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", reader), mode="r|") as tar:
                yield tar, reader
        except EOFError as error:
            raise ArchiveError(
                f"the archive {path} is cut off: its compressed data ends too early",
                hint="make or copy it again; its size on both sides should agree",
            ) from error
        except (zstandard.ZstdError, tarfile.TarError) as error:
            raise ArchiveError(
                f"{path} is not a nextest archive, or damaged: {error}", hint=MAKE_ONE
            ) from error


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise ArchiveError(f"there is no archive at {path}", hint=MAKE_ONE) from error
    except IsADirectoryError as error:
        raise ArchiveError(
            f"{path} is a directory, not a nextest archive", hint="name the .tar.zst file"
        ) from error
    except OSError as error:
        raise ArchiveError(f"the archive {path} cannot be read: {error.strerror}") from error

"""The uncompressed kernel out of a bzImage: QEMU starts it directly, nothing is unpacked in the guest."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Final

import zstandard

from vmrunner.errors import ImageBuildFailed

# The x86 boot protocol, Documentation/arch/x86/boot.rst in the Linux sources.
_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_VERSION: Final = 0x206
_PAYLOAD: Final = 0x248
_SECTOR_BYTES: Final = 512
_FIRST_VERSION_WITH_PAYLOAD: Final = 0x208
# The kernel's build appends the uncompressed size to whatever the compressor wrote.
_SIZE_BYTES: Final = 4


def vmlinux_of(bzimage: bytes) -> bytes:
    """The ELF kernel inside of `bzimage`.

    Raises ImageBuildFailed where it holds none that can be unpacked.
    """
    if len(bzimage) < _PAYLOAD + 8 or bzimage[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ImageBuildFailed("the kernel is not a bzImage: it has no boot protocol header")
    (version,) = struct.unpack_from("<H", bzimage, _VERSION)
    if version < _FIRST_VERSION_WITH_PAYLOAD:
        raise ImageBuildFailed(f"the kernel's boot protocol {version:#x} does not say where its payload is")
    offset, length = struct.unpack_from("<II", bzimage, _PAYLOAD)
    start = (bzimage[_SETUP_SECTORS] + 1) * _SECTOR_BYTES + offset
    payload = bzimage[start : start + length]
    if not length or len(payload) != length:
        raise ImageBuildFailed("the kernel is cut short: its payload ends after the file")
    kernel = _decompress(payload)
    if not kernel.startswith(b"\x7fELF"):
        raise ImageBuildFailed("the kernel's payload is not an ELF file")
    return kernel


def _decompress(payload: bytes) -> bytes:
    for magic, name, decompress in _FORMATS:
        if payload.startswith(magic):
            try:
                return decompress(payload)
            except (OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
                raise ImageBuildFailed(f"the kernel's {name} payload is damaged: {error}") from error
    raise ImageBuildFailed(
        f"the kernel is compressed in a way this version does not know (it starts with {payload[:4].hex()})",
        hint="zstd, xz and gzip are known; choose another kernel package in the recipe",
    )


def _unzstd(payload: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(payload)


def _unxz(payload: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)


def _gunzip(payload: bytes) -> bytes:
    return gzip.decompress(payload[:-_SIZE_BYTES])


_FORMATS: Final[tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...]] = (
    (b"\x28\xb5\x2f\xfd", "zstd", _unzstd),
    (b"\xfd7zXZ\x00", "xz", _unxz),
    (b"\x1f\x8b", "gzip", _gunzip),
)

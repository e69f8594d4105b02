"""The kernel comes out of a bzImage as it went in, or the reason it does not is said."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable

import pytest
import zstandard

from vmrunner.errors import ImageBuildFailed, exit_code_of
from vmrunner.image.kernel import vmlinux_of

KERNEL = b"\x7fELF" + bytes(range(256)) * 40
SETUP_SECTORS = 3
OFFSET = 0x2CC


def _bzimage(payload: bytes, version: int = 0x20F, length: int | None = None) -> bytes:
    image = bytearray((SETUP_SECTORS + 1) * 512 + OFFSET)
    image[0x1F1] = SETUP_SECTORS
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, OFFSET, len(payload) if length is None else length)
    return bytes(image) + payload


def _size_at_the_end(kernel: bytes) -> bytes:
    return struct.pack("<I", len(kernel))


@pytest.mark.parametrize("compress", [zstandard.compress, gzip.compress, lzma.compress])
def test_kernel_is_unpacked(compress: Callable[[bytes], bytes]) -> None:
    payload = compress(KERNEL) + _size_at_the_end(KERNEL)
    assert vmlinux_of(_bzimage(payload) + b"what follows the payload") == KERNEL


def test_unknown_compression_says_how_it_starts() -> None:
    with pytest.raises(ImageBuildFailed, match="02214c18") as caught:
        vmlinux_of(_bzimage(b"\x02\x21\x4c\x18" + bytes(100)))
    assert exit_code_of(caught.value) == 21
    assert "zstd" in (caught.value.hint or "")


@pytest.mark.parametrize("compress", [zstandard.compress, gzip.compress, lzma.compress])
def test_damaged_payload(compress: Callable[[bytes], bytes]) -> None:
    payload = bytearray(compress(KERNEL))
    payload[8:40] = bytes(32)
    with pytest.raises(ImageBuildFailed, match=r"damaged|not an ELF"):
        vmlinux_of(_bzimage(bytes(payload) + _size_at_the_end(KERNEL)))


def test_payload_that_is_no_kernel() -> None:
    with pytest.raises(ImageBuildFailed, match="not an ELF file"):
        vmlinux_of(_bzimage(zstandard.compress(b"text") + bytes(4)))


@pytest.mark.parametrize("content", [b"", b"MZ", bytes(4096), b"\x7fELF" + bytes(4096)])
def test_what_is_no_bzimage(content: bytes) -> None:
    with pytest.raises(ImageBuildFailed, match="not a bzImage"):
        vmlinux_of(content)


def test_truncated_bzimage() -> None:
    with pytest.raises(ImageBuildFailed, match="cut short"):
        vmlinux_of(_bzimage(zstandard.compress(KERNEL), length=1 << 20))


def test_boot_protocol_that_is_too_old() -> None:
    with pytest.raises(ImageBuildFailed, match="0x207"):
        vmlinux_of(_bzimage(b"", version=0x207))

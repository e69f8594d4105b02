"""Changes to real nextest archives: another processor, a newer C library, an end that is missing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import zstandard

EM_X86_64 = (62).to_bytes(2, "little")
EM_AARCH64 = (183).to_bytes(2, "little")
MACHINE_OFFSET = 18
"""Where an ELF header says for which processor the program is (elf(5), `e_machine`)."""
GUEST_TRIPLE = b"x86_64-unknown-linux-gnu"
OTHER_TRIPLE = b"aarch64-unknown-linux-gnu"

Edit = Callable[[str, bytes], bytes]


def edited(archive: Path, destination: Path, edit: Edit) -> Path:
    """Copy `archive` with the content of each file replaced by what `edit(name, content)` returns."""
    packed = zstandard.ZstdDecompressor().decompressobj().decompress(archive.read_bytes())
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(packed)) as source, tarfile.open(fileobj=out, mode="w") as target:
        for member in source:
            file = source.extractfile(member)
            content = edit(member.name, file.read()) if file else b""
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    destination.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()))
    return destination


def for_aarch64(name: str, content: bytes) -> bytes:
    """What the same build for another processor would say of itself, in its programs and its metadata."""
    if name.endswith(".json"):
        return content.replace(GUEST_TRIPLE, OTHER_TRIPLE)
    if content.startswith(b"\x7fELF") and content[MACHINE_OFFSET : MACHINE_OFFSET + 2] == EM_X86_64:
        return content[:MACHINE_OFFSET] + EM_AARCH64 + content[MACHINE_OFFSET + 2 :]
    return content


def needing_glibc_2_99(name: str, content: bytes) -> bytes:
    """Programs that need a C library that does not exist yet."""
    return content.replace(b"GLIBC_2.34\0", b"GLIBC_2.99\0") if content.startswith(b"\x7fELF") else content

"""Small archives as nextest writes them, and ELF files that need what a test wants them to need."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

LOADER = "/lib64/ld-linux-x86-64.so.2"
TRIPLE = "x86_64-unknown-linux-gnu"
EM_X86_64 = 62
EM_AARCH64 = 183
TEST_BINARY = "debug/deps/demo-1"


def file_member(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def special_member(name: str, kind: bytes, linkname: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A link, device or directory."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, linkname
    return member, b""


def binaries_metadata(target: str = "/build/ws/target", **build_meta: Any) -> dict[str, Any]:
    """What nextest 0.9.148 writes for a package `demo` with one test binary."""
    libdir = {"status": "available", "path": "/toolchain/lib"}
    host = {"platform": {"triple": TRIPLE, "target-features": "unknown"}, "libdir": libdir}
    return {
        "rust-build-meta": {
            "target-directory": target,
            "non-test-binaries": {"demo": [{"name": "demo", "kind": "bin-exe", "path": "debug/demo"}]},
            "platforms": {"host": host, "targets": []},
            **build_meta,
        },
        "rust-binaries": {
            "demo": {
                "binary-id": "demo",
                "binary-name": "demo",
                "package-id": "path+file:///build/ws#demo@0.1.0",
                "kind": "lib",
                "binary-path": f"{target}/{TEST_BINARY}",
                "build-platform": "target",
            }
        },
    }


def cargo_metadata(target: str = "/build/ws/target", **more: Any) -> dict[str, Any]:
    """The part of `cargo metadata` that matters."""
    member = {"id": "path+file:///build/ws#demo@0.1.0", "manifest_path": "/build/ws/demo/Cargo.toml"}
    foreign = {"id": "registry+x#y@1.0.0", "manifest_path": "/cargo/registry/y/Cargo.toml"}
    return {
        "workspace_root": "/build/ws",
        "target_directory": target,
        "workspace_members": [member["id"]],
        "packages": [member, foreign],
        **more,
    }


def metadata_members(
    binaries: dict[str, Any] | None = None, cargo: dict[str, Any] | None = None
) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The two members that come first."""
    return [
        file_member(
            "target/nextest/binaries-metadata.json", json.dumps(binaries or binaries_metadata()).encode()
        ),
        file_member("target/nextest/cargo-metadata.json", json.dumps(cargo or cargo_metadata()).encode()),
    ]


def demo_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    """A whole archive: metadata, a test binary, a program, the standard library."""
    return [
        *metadata_members(),
        file_member(f"target/{TEST_BINARY}", elf_file(glibc=["2.2.5", "2.34"]), 0o755),
        file_member("target/debug/demo", elf_file(glibc=["2.17"]), 0o755),
        file_member("target/nextest/libdirs/host/libstd-1.so", elf_file(interpreter=None, glibc=["2.18"])),
    ]


def tar_bytes(members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def write_archive(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Write a `.tar.zst` and return its path."""
    path.write_bytes(zstandard.ZstdCompressor().compress(tar_bytes(members)))
    return path


def elf_file(
    *,
    machine: int = EM_X86_64,
    interpreter: str | None = LOADER,
    glibc: Sequence[str] = (),
    names: Sequence[str] = (),
    weak: Sequence[str] = (),
    libraries: Sequence[str] = (),
    run_path: str | None = None,
    old_run_path: str | None = None,
) -> bytes:
    """A 64-bit ELF file whose version table asks for these versions of glibc, as elf(5) has it.

    `libraries` and the run paths (DT_RUNPATH, DT_RPATH) make its dynamic section.
    """
    wanted = [*((f"GLIBC_{version}", 0) for version in glibc), *((name, 0) for name in names)]
    wanted += [(f"GLIBC_{version}", 2) for version in weak]
    strings = b"\0libc.so.6\0"
    versions = struct.pack("<HHIII", 1, len(wanted), 1, 16, 0)
    for position, (name, flags) in enumerate(wanted):
        following = 16 if position + 1 < len(wanted) else 0
        versions += struct.pack("<IHHII", 0, flags, 2 + position, len(strings), following)
        strings += name.encode() + b"\0"
    dynamic = b""
    for tag, text in (*((1, library) for library in libraries), (29, run_path), (15, old_run_path)):
        if text is not None:
            dynamic += struct.pack("<QQ", tag, len(strings))
            strings += text.encode() + b"\0"
    dynamic += bytes(16) if dynamic else b""
    section_names = b"\0.dynstr\0.gnu.version_r\0.shstrtab\0.dynamic\0"
    loader = (interpreter or "").encode() + b"\0"
    start = 64 + 56
    offsets = [start]
    for blob in (loader, strings, versions, section_names, dynamic):
        offsets.append(offsets[-1] + len(blob))
    empty = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    sections = [
        empty,
        struct.pack("<IIQQQQIIQQ", 1, 3, 2, 0, offsets[1], len(strings), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 9, 0x6FFFFFFE, 2, 0, offsets[2], len(versions), 1, 1, 8, 0),
        struct.pack("<IIQQQQIIQQ", 24, 3, 0, 0, offsets[3], len(section_names), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 34, 6, 2, 0, offsets[4], len(dynamic), 1, 0, 8, 16) if dynamic else empty,
    ]
    if not wanted:
        sections[2] = empty
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, offsets[5], 0, 64, 56, 1, 64, 5, 3)
    kind = 3 if interpreter else 0
    program = struct.pack("<IIQQQQQQ", kind, 4, start, 0, 0, len(loader), len(loader), 1)
    content = header + program + loader + strings + versions + section_names + dynamic
    return content + b"".join(sections)

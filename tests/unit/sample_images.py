"""A small image on disk that keeps to its manifest, for tests that never boot it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmrunner.image.manifest import Image, Manifest, record, write_manifest


def write_image(directory: Path, **changes: Any) -> Image:
    """Write the image's files and manifest below `directory`; `changes` are fields of the manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("vmlinuz", "initrd", "root.img"):
        (directory / name).write_text(f"stands for {name}")
    fields: dict[str, Any] = {
        "name": "debian",
        "digest": "0" * 64,
        "architecture": "x86_64",
        "kernel": "vmlinuz",
        "initrd": "initrd",
        "kernel_command_line": "console=ttyS0 root=/dev/vda rw",
        "root_disk": "root.img",
        "root_disk_format": "raw",
        "root_disk_size": 2 << 30,
        "init": "/sbin/init",
        "systemd_version": "252",
        "glibc": "2.36",
        "nextest": None,
        "interpreters": ("/lib64/ld-linux-x86-64.so.2",),
        "built_from": {},
        "created": "2026-01-01T00:00:00Z",
        "files": {name: record(directory / name) for name in ("vmlinuz", "initrd", "root.img")},
    }
    manifest = Manifest.model_validate(fields | changes)
    write_manifest(directory, manifest)
    return Image(directory, manifest)

"""A memory template of small files, for tests that never restore one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmrunner.guest.key import make_login_key
from vmrunner.machine import templates
from vmrunner.machine.templates import TemplateRecord

LOGIN = make_login_key()


def sample_record(key: str, **changes: Any) -> TemplateRecord:
    """The record of a template of that key."""
    fields: dict[str, Any] = {
        "key": key,
        "image": "debian",
        "image_directory": Path("/images/debian"),
        "accelerator": "tcg",
        "qemu_version": "7.2.22",
        "cpus": 2,
        "memory": 1 << 30,
        "public_key": LOGIN.public,
        "guest_clock": 1_800_000_000.5,
        "files": {},
    }
    return TemplateRecord.model_validate(fields | changes)


def write_template(key: str, *, size: int = 0, **changes: Any) -> Path:
    """Put a template into the store, with `size` bytes of memory; `changes` are fields of its record."""
    with templates.making(key) as directory:
        (directory / "ram").write_bytes(b"r" * size)
        for name in ("state", "disk.qcow2", "overlay.qcow2"):
            (directory / name).write_text(name)
        (directory / "login-key").write_text(LOGIN.private)
        templates.finish_template(directory, sample_record(key, **changes))
    return templates.path_of(key)

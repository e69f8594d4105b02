"""The fields of a small recipe, for tests that never build it."""

from __future__ import annotations

from typing import Any

FIELDS: dict[str, Any] = {
    "name": "debian",
    "suite": "trixie",
    "sources": ["deb http://mirror.example/debian trixie main"],
    "keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "packages": ["systemd-sysv"],
    "root_disk_size": "8G",
    "kernel_command_line": ["root=/dev/vda"],
    "initrd_modules": ["ext4"],
}

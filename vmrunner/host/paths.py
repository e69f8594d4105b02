"""Where vmrunner keeps things on this computer (the XDG base directories), and its own data files."""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

_APP = "vmrunner"


def private(directory: Path) -> Path:
    """Make `directory`, and what is missing above it, for its user only, and return it."""
    for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    return directory


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/vmrunner`: images, templates, staged archives; all of it can be made again."""
    return private(platformdirs.user_cache_path(_APP))


def state_dir() -> Path:
    """`$XDG_STATE_HOME/vmrunner`: runs and long-lived VMs."""
    return private(platformdirs.user_state_path(_APP))


def images_dir() -> Path:
    """The image store: one directory per digest."""
    return private(cache_dir() / "images")


def templates_dir() -> Path:
    """Memory templates, one directory per key."""
    return private(cache_dir() / "templates")


def vms_dir() -> Path:
    """Long-lived VMs, one directory per name."""
    return private(state_dir() / "vms")


def archives_dir() -> Path:
    """Extracted nextest archives, one directory per digest."""
    return private(cache_dir() / "archives")


def runs_dir() -> Path:
    """One directory per run: reports and logs."""
    return private(state_dir() / "runs")


def runtime_dir() -> Path:
    """Where a machine's sockets and pid live: `$XDG_RUNTIME_DIR/vmrunner`, else below the temporary directory.

    Paths of sockets must stay under 107 bytes (unix(7)), so this never is a deep directory.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir() and os.access(base, os.W_OK):
        return private(Path(base) / _APP)
    directory = Path(tempfile.gettempdir()) / f"{_APP}-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return directory
    return private(state_dir() / "runtime")  # somebody else was there first


@cache
def data_dir(name: str) -> Path:
    """The directory `images` or `nix` that travels with the package: in the wheel, or in the source tree."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_data" / name
    return packaged if packaged.is_dir() else package.parent / name

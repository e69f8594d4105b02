"""What vmrunner lays over a Debian system: guest files, enabled and masked units, marks of work done."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import PurePosixPath
from typing import Final

from vmrunner.image.recipe import GuestFile, Recipe

_UNITS: Final = "etc/systemd/system"
_DISTRIBUTION_UNITS: Final = "usr/lib/systemd/system"
# Where the initrd puts the kernel's devices; the system comes without.
_DEVICES: Final = "dev"
_GENERATORS: Final = "etc/systemd/system-generators"
# Newer than /usr: systemd then knows that caches are fresh and skips what rebuilds them (systemd.unit(5),
# ConditionNeedsUpdate).
_STAMPS: Final = ("etc/.updated", "var/.updated")


def overlay_links(recipe: Recipe) -> dict[str, str]:
    """Symbolic links of the overlay: path -> target. Masks are links to /dev/null (systemctl(1), mask)."""
    links = {f"{_UNITS}/{unit}": "/dev/null" for unit in recipe.mask}
    links |= {f"{_GENERATORS}/{name}": "/dev/null" for name in recipe.mask_generators}
    for target, units in recipe.enable.items():
        links |= {f"{_UNITS}/{target}.wants/{unit}": f"/{_UNITS}/{unit}" for unit in units}
    return links


def unwanted_links(recipe: Recipe) -> list[str]:
    """Links of the distribution that start a unit at boot and are removed; the unit can still be started."""
    return [
        f"{_DISTRIBUTION_UNITS}/{target}.wants/{unit}"
        for target, units in recipe.unwant.items()
        for unit in units
    ]


def overlay_tar(recipe: Recipe, files: list[GuestFile]) -> bytes:
    """The overlay as a tar archive, all of it owned by root.

    It names every directory on the way, so that new ones do not get the mode of somebody's umask; those that
    exist are to be left as they are (`tar --no-overwrite-dir`).
    """
    links = overlay_links(recipe)
    now = int(time.time())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for directory in [_DEVICES, *_directories([*(file.path for file in files), *_STAMPS, *links])]:
            member = _member(directory, 0o755, now)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for file in files:
            _add_file(archive, file.path, file.mode, file.content, now)
        for stamp in _STAMPS:
            _add_file(archive, stamp, 0o644, b"", now)
        for path, target in sorted(links.items()):
            member = _member(path, 0o777, now)
            member.type = tarfile.SYMTYPE
            member.linkname = target
            archive.addfile(member)
    return buffer.getvalue()


def _directories(paths: list[str]) -> list[str]:
    """All parents of `paths`, each before what lies in it."""
    parents = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    return sorted(parents - {"."})


def _member(path: str, mode: int, now: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mode = mode
    member.mtime = now
    member.uname = member.gname = "root"
    return member


def _add_file(archive: tarfile.TarFile, path: str, mode: int, content: bytes, now: int) -> None:
    member = _member(path, mode, now)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))

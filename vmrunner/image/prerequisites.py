"""What this computer must have before a Debian image is built: tools, a way to be root, room on the disk."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

from vmrunner.config.units import Size
from vmrunner.errors import CommandFailed, HostError, ImageBuildFailed
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command

BuildMode = Literal["root", "unshare"]

_PACKAGE_OF: Final = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "tar": "tar",
    "unshare": "util-linux",
}
# The embedded recipe was built on a file system of 0.85 GB, about half of it for the system that is
# installed; the rest is room for `packages:`.
CHROOT_BYTES: Final = 900_000_000
STORE_BYTES: Final = 1_300_000_000
ROOM_HINT: Final = (
    "`vmrunner image prune` removes images that are not used; TMPDIR and XDG_CACHE_HOME choose other disks"
)
_PROBE_SECONDS: Final = 20.0


def check_tools(keyring: str) -> None:
    """Raise HostError with one apt line for all that is missing."""
    missing = {package for tool, package in _PACKAGE_OF.items() if _which(tool) is None}
    if not Path(keyring).is_file():
        missing.add("debian-archive-keyring")
    if os.geteuid() != 0 and _which("newuidmap") is None:
        missing.add("uidmap")
    if missing:
        names = " ".join(sorted(missing))
        raise HostError(
            f"building the Debian image needs {', '.join(sorted(missing))}, which this computer lacks",
            hint=f"sudo apt-get install --no-install-recommends {names}",
        )


def build_mode(deadline: Deadline) -> BuildMode:
    """How mmdebstrap may be root in the new system.

    Raises HostError naming what an ordinary user lacks for it.
    """
    if os.geteuid() == 0:
        return "root"
    user = getpass.getuser()
    for kind in ("subuid", "subgid"):
        if not _has_subordinate_ids(Path("/etc") / kind, user):
            raise HostError(
                f"{user} has no range of subordinate ids in /etc/{kind}, which building an image needs",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    try:
        run_command(
            ["unshare", "--user", "--map-root-user", "true"], deadline=deadline.within(_PROBE_SECONDS)
        )
    except CommandFailed as error:
        raise HostError(
            "this computer lets no ordinary user make a user namespace, which building an image needs",
            hint="build as root, or allow it: sudo sysctl kernel.unprivileged_userns_clone=1 (Debian), "
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)",
            details=error.details,
        ) from error
    return "unshare"


def check_free_space(store: Path, mode: BuildMode) -> None:
    """Raise ImageBuildFailed where the store or the temporary directory has no room for a build."""
    chroot = store if mode == "root" else Path(tempfile.gettempdir())
    needs: dict[int, tuple[Path, int]] = {}
    for directory, size in ((chroot, CHROOT_BYTES), (store, STORE_BYTES)):
        device = directory.stat().st_dev
        needs[device] = (directory, size + needs.get(device, (directory, 0))[1])
    for directory, size in needs.values():
        free = shutil.disk_usage(directory).free
        if free < size:
            raise ImageBuildFailed(
                f"{directory} has {Size(free).for_people()} free, building the image takes "
                f"{Size(size).for_people()}",
                hint=ROOM_HINT,
            )


def _which(tool: str) -> str | None:
    """Where a tool is; /usr/sbin is not on every user's PATH, and mke2fs lives there."""
    return shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")


def tool_path(tool: str) -> str:
    """The full path of a tool that `check_tools` has found."""
    return _which(tool) or tool


def _has_subordinate_ids(path: Path, user: str) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (user, str(os.getuid())) for line in lines)

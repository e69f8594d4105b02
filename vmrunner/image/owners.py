"""Owners of files: what tar knew and an unprivileged unpacking lost is put into the file system.

`mke2fs -d` copies owners from the tree, where all files are the builder's. debugfs(8) then sets what the
archive says: no root, no fakeroot, and the same commands whoever builds.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from vmrunner.errors import ImageBuildFailed
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command

_CAPABILITY: Final = "security.capability"
_PAX_CAPABILITY: Final = f"SCHILY.xattr.{_CAPABILITY}"


@dataclass(frozen=True)
class Owner:
    """Whose a file is, and its file capabilities (capabilities(7)) as the kernel stores them."""

    uid: int
    gid: int
    capability: bytes | None = None


def owners_in(archive: Path) -> dict[str, Owner]:
    """The owners of all files in a tar archive, by absolute path; hard links share those of their file."""
    with tarfile.open(archive) as members:
        return {
            _absolute(member.name): Owner(member.uid, member.gid, _capability(member))
            for member in members
            if not member.islnk() and not member.isdev()
        }


def set_owners(
    disk: Path, *, tree: Path, owners: dict[str, Owner], scratch: Path, deadline: Deadline, debugfs: str
) -> None:
    """Give every file of the ext4 file system in `disk`, made of `tree`, its owner; root where none is known.

    Raises ImageBuildFailed where debugfs could not do one of them. `scratch` is a directory for its input.
    """
    script = scratch / "debugfs-commands"
    script.write_text("".join(f"{line}\n" for line in _commands(tree, owners, scratch)), encoding="utf-8")
    result = run_command([debugfs, "-w", "-f", script, disk], deadline=deadline)
    # debugfs ends with 0 whatever its commands did; its first line is its version.
    complaints = result.stderr.splitlines()[1:]
    if complaints:
        raise ImageBuildFailed(
            f"an owner could not be set on the root disk: {complaints[0]}", details="\n".join(complaints[:20])
        )


def _commands(tree: Path, owners: dict[str, Owner], scratch: Path) -> Iterator[str]:
    for number, path in enumerate([tree, *sorted(tree.rglob("*"))]):
        name = _absolute(path.relative_to(tree).as_posix())
        owner = owners.get(name, Owner(0, 0))
        status = path.lstat()
        for field, wanted, found in (("uid", owner.uid, status.st_uid), ("gid", owner.gid, status.st_gid)):
            if wanted != found:
                yield f"set_inode_field {_quoted(name)} {field} {wanted}"
        if owner.capability:
            value = scratch / f"capability-{number}"
            value.write_bytes(owner.capability)
            yield f"ea_set -f {_quoted(str(value))} {_quoted(name)} {_CAPABILITY}"


def _absolute(name: str) -> str:
    """`./usr/bin` -> `/usr/bin`, `.` -> `/`."""
    return str(PurePosixPath("/", name))


def _quoted(name: str) -> str:
    """As libss reads its commands: in double quotes, a double quote doubled."""
    return '"' + name.replace('"', '""') + '"'


def _capability(member: tarfile.TarInfo) -> bytes | None:
    value = member.pax_headers.get(_PAX_CAPABILITY)
    return value.encode("utf-8", "surrogateescape") if value else None

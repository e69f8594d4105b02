"""Owners and capabilities get from an archive into a file system without being root."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from vmrunner.errors import ImageBuildFailed
from vmrunner.host.deadline import Deadline
from vmrunner.image.owners import Owner, owners_in, set_owners

TOOLS = "/usr/sbin:/sbin:/usr/bin:/bin"
MKE2FS = shutil.which("mke2fs", path=TOOLS)
DEBUGFS = shutil.which("debugfs", path=TOOLS)
CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
needs_e2fsprogs = pytest.mark.skipif(not (MKE2FS and DEBUGFS), reason="e2fsprogs is not installed")


def _archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def _member(name: str, uid: int = 0, gid: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.uid, member.gid, member.type = uid, gid, kind
    return member


def test_owners_are_read_by_absolute_path(tmp_path: Path) -> None:
    archive = _archive(
        tmp_path / "a.tar",
        _member(".", kind=tarfile.DIRTYPE),
        _member("./var/mail", 0, 8),
        _member("etc/x", 5, 6),
    )
    assert owners_in(archive) == {"/": Owner(0, 0), "/var/mail": Owner(0, 8), "/etc/x": Owner(5, 6)}


def test_hard_link_does_not_change_the_owner_of_its_file(tmp_path: Path) -> None:
    link = _member("etc/y", 0, 0, tarfile.LNKTYPE)
    link.linkname = "etc/x"
    assert list(owners_in(_archive(tmp_path / "a.tar", _member("etc/x", 5, 6), link))) == ["/etc/x"]


def test_file_capability_is_read(tmp_path: Path) -> None:
    member = _member("usr/bin/ping")
    member.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    assert owners_in(_archive(tmp_path / "a.tar", member))["/usr/bin/ping"].capability == CAPABILITY


def _file_system(tmp_path: Path) -> tuple[Path, Path]:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    (tree / "usr/with space").mkdir(parents=True)
    (tree / "usr/with space/file").write_text("x")
    (tree / 'usr/a "quoted" name').write_text("x")
    (tree / "usr/link").symlink_to("nowhere")
    with disk.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run([str(MKE2FS), "-q", "-F", "-t", "ext4", "-d", str(tree), str(disk)], check=True)
    return tree, disk


def _stat(disk: Path, path: str) -> str:
    quoted = path.replace('"', '""')
    command = [str(DEBUGFS), "-R", f'stat "{quoted}"', str(disk)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _set(tree: Path, disk: Path, owners: dict[str, Owner], scratch: Path) -> None:
    set_owners(
        disk, tree=tree, owners=owners, scratch=scratch, deadline=Deadline.after(60), debugfs=str(DEBUGFS)
    )


@needs_e2fsprogs
def test_every_file_gets_its_owner_and_root_where_none_is_known(tmp_path: Path) -> None:
    tree, disk = _file_system(tmp_path)
    quoted = '/usr/a "quoted" name'
    owners = {"/usr/with space/file": Owner(7, 70000), quoted: Owner(1, 2), "/usr/link": Owner(3, 4)}
    _set(tree, disk, owners, tmp_path)
    for path, wanted in {**owners, "/": Owner(0, 0), "/usr": Owner(0, 0)}.items():
        words = _stat(disk, path).split()
        assert (words[words.index("User:") + 1], words[words.index("Group:") + 1]) == (
            str(wanted.uid),
            str(wanted.gid),
        )


@needs_e2fsprogs
def test_file_capability_is_set(tmp_path: Path) -> None:
    tree, disk = _file_system(tmp_path)
    _set(tree, disk, {"/usr/with space/file": Owner(0, 0, CAPABILITY)}, tmp_path)
    assert "security.capability" in _stat(disk, "/usr/with space/file")


@needs_e2fsprogs
def test_what_debugfs_cannot_do_is_an_error_though_it_ends_well(tmp_path: Path) -> None:
    tree, disk = _file_system(tmp_path)
    (tree / "only-in-the-tree").write_text("x")
    with pytest.raises(ImageBuildFailed, match="owner could not be set"):
        _set(tree, disk, {"/only-in-the-tree": Owner(5, 5)}, tmp_path)

"""Nothing in an archive reaches outside the directory it is unpacked into."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import zstandard
from nextest_archives import demo_members, file_member, special_member, tar_bytes, write_archive

from vmrunner.errors import ArchiveError, HostError, RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.nextest import unpack as unpack_module
from vmrunner.nextest.unpack import unpack

Member = tuple[tarfile.TarInfo, bytes]


def unpacked(directory: Path, members: list[Member]) -> Path:
    root = directory / "root"
    root.mkdir()
    unpack(write_archive(directory / "a.tar.zst", members), root, deadline=Deadline.after(60))
    return root


def refused(directory: Path, *members: Member) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        unpacked(directory, list(members))
    assert caught.value.exit_code == 24
    assert caught.value.hint
    return caught.value


def test_files_keep_content_and_the_executable_bit(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path,
        [
            file_member("target/debug/run", b"program", 0o755),
            file_member("target/debug/out/data", b"data", 0o600),
        ],
    )
    assert (root / "target/debug/run").read_bytes() == b"program"
    assert (root / "target/debug/run").stat().st_mode & 0o7777 == 0o755
    assert (root / "target/debug/out/data").stat().st_mode & 0o7777 == 0o644


def test_setuid_is_dropped(tmp_path: Path) -> None:
    root = unpacked(tmp_path, [file_member("target/su", b"", 0o6755)])
    assert (root / "target/su").stat().st_mode & 0o7777 == 0o755


def test_modification_times_are_kept(tmp_path: Path) -> None:
    member, content = file_member("target/a", b"x")
    member.mtime = 1_000_000_000
    assert (unpacked(tmp_path, [(member, content)]) / "target/a").stat().st_mtime == 1_000_000_000


def test_the_size_and_the_progress_are_told(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.zst", demo_members())
    told: list[int] = []
    (tmp_path / "root").mkdir()
    size = unpack(archive, tmp_path / "root", deadline=Deadline.after(60), on_bytes=told.append)
    assert size == sum(member.size for member, _ in demo_members())
    assert told == sorted(told)
    assert told[-1] == archive.stat().st_size


@pytest.mark.parametrize(
    "name",
    ["/etc/evil", "../evil", "target/../../evil", "target/../evil", "evil", "other/evil", "/target/evil"],
)
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    assert "evil" in refused(tmp_path, file_member(name, b"x")).message
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(tmp_path: Path, kind: bytes) -> None:
    assert "device or FIFO" in refused(tmp_path, special_member("target/dev", kind)).message


@pytest.mark.parametrize(
    "linkname", ["/etc/passwd", "../../etc/passwd", "..", "sub/../../../etc", "a/..", "/", "../../.."]
)
def test_symbolic_links_that_lead_out(tmp_path: Path, linkname: str) -> None:
    message = refused(tmp_path, special_member("target/link", tarfile.SYMTYPE, linkname)).message
    assert linkname in message


def test_symbolic_links_that_stay(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path,
        [
            file_member("target/lib/libx.so.1", b"x"),
            special_member("target/lib/libx.so", tarfile.SYMTYPE, "libx.so.1"),
            special_member("target/out/sub/up", tarfile.SYMTYPE, "../../lib/libx.so"),
        ],
    )
    assert (root / "target/out/sub/up").read_bytes() == b"x"


def test_a_link_through_another_link_cannot_climb(tmp_path: Path) -> None:
    refused(
        tmp_path,
        special_member("target/a/b/c/top", tarfile.SYMTYPE, "../../.."),
        special_member("target/a/out", tarfile.SYMTYPE, "b/c/top/../../etc"),
    )


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    error = refused(
        tmp_path,
        special_member("target/real", tarfile.DIRTYPE),
        special_member("target/link", tarfile.SYMTYPE, "real"),
        file_member("target/link/file", b"x"),
    )
    assert "`target/link` is not a directory" in error.message


def test_a_file_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path,
        [
            file_member("target/original", b"old"),
            special_member("target/name", tarfile.SYMTYPE, "original"),
            file_member("target/name", b"new"),
        ],
    )
    assert (root / "target/original").read_bytes() == b"old"
    assert not (root / "target/name").is_symlink()


def test_hard_links_inside(tmp_path: Path) -> None:
    members = [file_member("target/a", b"x"), special_member("target/b", tarfile.LNKTYPE, "target/a")]
    assert (unpacked(tmp_path, members) / "target/b").read_bytes() == b"x"


@pytest.mark.parametrize("linkname", ["/etc/passwd", "../outside", "target/none"])
def test_hard_links_outside(tmp_path: Path, linkname: str) -> None:
    refused(tmp_path, special_member("target/b", tarfile.LNKTYPE, linkname))


def test_a_hard_link_to_a_symbolic_link(tmp_path: Path) -> None:
    refused(
        tmp_path,
        special_member("target/s", tarfile.SYMTYPE, "t"),
        special_member("target/b", tarfile.LNKTYPE, "target/s"),
    )


def test_a_file_where_a_directory_is(tmp_path: Path) -> None:
    refused(tmp_path, file_member("target/a/b", b"x"), file_member("target/a", b"x"))


def test_a_member_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(HostError) as caught:
        unpacked(tmp_path, [file_member("target/large", b"12345")])
    assert caught.value.exit_code == 20
    assert "needs 5 bytes, 0 are free" in caught.value.message


def test_cut_off_in_the_middle_or_at_the_very_end(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.zst", demo_members())
    whole = archive.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 1):
        archive.write_bytes(whole[:kept])
        root = tmp_path / f"root-{kept}"
        root.mkdir()
        with pytest.raises(ArchiveError, match="cut off"):
            unpack(archive, root, deadline=Deadline.after(60))


def test_a_tar_that_ends_in_a_member(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.zst"
    cut = tar_bytes([file_member("target/a", bytes(5000))])[:2000]
    archive.write_bytes(zstandard.ZstdCompressor().compress(cut))
    (tmp_path / "root").mkdir()
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "root", deadline=Deadline.after(60))


def test_the_time_is_up(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.zst", demo_members())
    (tmp_path / "root").mkdir()
    with pytest.raises(RunTimeout):
        unpack(archive, tmp_path / "root", deadline=Deadline.after(0))

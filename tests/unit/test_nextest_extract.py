"""Extracted archives: made once, shared, pruned only when nobody uses them."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from pathlib import Path, PurePosixPath

import pytest
from nextest_archives import (
    TRIPLE,
    binaries_metadata,
    demo_members,
    file_member,
    metadata_members,
    special_member,
    write_archive,
)

from vmrunner.errors import ArchiveError, HostError, RunTimeout
from vmrunner.events import Event, PhaseFinished, PhaseProgress, PhaseStarted, silent
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.extract import extract_archive, guest_binaries_metadata, prune_archives

MINUTE = 60.0


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "tests.tar.zst", demo_members())


def extract_all(cache: Path, *archives: Path) -> list[str]:
    """Extract and let go of each; they are used in this order, seconds apart."""
    digests = []
    for age, archive in enumerate(reversed(archives)):
        with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
            digests.append(extracted.digest)
        moment = extracted.directory.stat().st_mtime - age
        os.utime(extracted.directory, (moment, moment))
    return digests[::-1]


def numbered_archives(directory: Path, count: int) -> list[Path]:
    return [
        write_archive(
            directory / f"{number}.tar.zst", [*demo_members(), file_member(f"target/{number}", b"x")]
        )
        for number in range(count)
    ]


def test_what_is_there_afterwards(archive: Path, cache: Path) -> None:
    with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
        assert extracted.digest == hashlib.sha256(archive.read_bytes()).hexdigest()
        assert extracted.directory == cache / extracted.digest
        assert os.access(extracted.target / "debug/deps/demo-1", os.X_OK)
        assert list((extracted.target / "tmp").iterdir()) == []
        assert json.loads(extracted.cargo_metadata.read_text())["workspace_root"] == "/build/ws"
        assert extracted.info.target_directory == PurePosixPath("/build/ws/target")
        assert extracted.directory.stat().st_mode & 0o777 == 0o700


def test_the_second_time_nothing_is_extracted(archive: Path, cache: Path) -> None:
    events: list[Event] = []
    for _ in range(2):
        with extract_archive(archive, cache=cache, emit=events.append, deadline=Deadline.after(MINUTE)):
            pass
    assert len([event for event in events if isinstance(event, PhaseStarted)]) == 1
    progress = [event for event in events if isinstance(event, PhaseProgress)]
    assert progress[-1].done == progress[-1].total == archive.stat().st_size
    assert progress[-1].unit == "bytes"


def test_two_at_once_extract_once(archive: Path, cache: Path) -> None:
    events: list[Event] = []

    def use() -> None:
        with extract_archive(archive, cache=cache, emit=events.append, deadline=Deadline.after(MINUTE)):
            pass

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([event for event in events if isinstance(event, PhaseFinished) and event.text]) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(
    "members",
    [
        [*demo_members(), file_member("../evil")],
        [*demo_members(), special_member("target/nextest/cargo-metadata.json", tarfile.SYMTYPE, "x")],
    ],
)
def test_a_hostile_archive_leaves_nothing(
    tmp_path: Path, cache: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    archive = write_archive(tmp_path / "a.tar.zst", members)
    with (
        pytest.raises(ArchiveError),
        extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)),
    ):
        pass
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_truncated_archive_leaves_nothing(archive: Path, cache: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-3])
    with (
        pytest.raises(ArchiveError, match="cut off"),
        extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)),
    ):
        pass
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_what_a_killed_extraction_left_is_swept(archive: Path, cache: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (cache / f".tmp-{digest}-999999" / "target").mkdir(parents=True)
    (cache / digest / "target").mkdir(parents=True)
    with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
        assert (extracted.target / "debug").is_dir()
    assert not list(cache.glob(".tmp-*"))


def test_a_cache_that_cannot_be_written(archive: Path, cache: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (cache / digest).write_text("a file where the directory goes")
    with (
        pytest.raises(HostError) as caught,
        extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)),
    ):
        pass
    assert caught.value.exit_code == 20
    assert str(cache) in caught.value.message


def test_the_time_is_up(archive: Path, cache: Path) -> None:
    with (
        pytest.raises(RunTimeout),
        extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(0)),
    ):
        pass


def test_the_guest_finds_the_standard_library_in_the_archive(archive: Path, cache: Path) -> None:
    with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
        document = json.loads(guest_binaries_metadata(extracted, target_directory=PurePosixPath("/q/target")))
    original = binaries_metadata()
    libdir = document["rust-build-meta"]["platforms"]["host"].pop("libdir")
    original["rust-build-meta"]["platforms"]["host"].pop("libdir")
    assert libdir == {"status": "available", "path": "/q/target/nextest/libdirs/host"}
    assert document == original


def test_the_library_of_a_target_too_and_none_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    gone = {"status": "unavailable", "reason": "not-in-archive"}
    platforms = {
        "host": {"platform": {"triple": TRIPLE}, "libdir": gone},
        "targets": [
            {"platform": {"triple": TRIPLE}, "libdir": {"status": "available", "path": "/toolchain"}}
        ],
    }
    members = metadata_members(binaries_metadata(platforms=platforms))
    members.append(file_member("target/nextest/libdirs/target/0/libstd.so"))
    archive = write_archive(tmp_path / "a.tar.zst", members)
    with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
        document = json.loads(guest_binaries_metadata(extracted, target_directory=PurePosixPath("/t")))
    result = document["rust-build-meta"]["platforms"]
    assert result["host"]["libdir"] == gone
    assert result["targets"][0]["libdir"]["path"] == "/t/nextest/libdirs/target/0"


def test_the_ones_used_last_are_kept(tmp_path: Path, cache: Path) -> None:
    oldest, older, newest = extract_all(cache, *numbered_archives(tmp_path, 3))
    assert prune_archives(cache, deadline=Deadline.after(MINUTE), keep=1) == (older, oldest)
    assert (cache / newest / "target").is_dir()
    assert not (cache / oldest).exists()


def test_bytes_count_too(tmp_path: Path, cache: Path) -> None:
    oldest, newest = extract_all(cache, *numbered_archives(tmp_path, 2))
    size = json.loads((cache / newest / "extracted.json").read_text())["bytes"]
    assert prune_archives(cache, deadline=Deadline.after(MINUTE), keep_bytes=size) == (oldest,)


def test_one_in_use_stays(archive: Path, cache: Path) -> None:
    deadline = Deadline.after(MINUTE)
    with extract_archive(archive, cache=cache, emit=silent, deadline=deadline) as extracted:
        assert prune_archives(cache, deadline=deadline, keep=0) == ()
        assert extracted.cargo_metadata.is_file()
    assert prune_archives(cache, deadline=deadline, keep=0) == (extracted.digest,)


def test_pruning_sweeps_what_was_interrupted(cache: Path) -> None:
    (cache / ".tmp-abc-12" / "target").mkdir(parents=True)
    assert prune_archives(cache, deadline=Deadline.after(MINUTE)) == ()
    assert not (cache / ".tmp-abc-12").exists()


def test_an_archive_that_was_pruned_is_extracted_again(archive: Path, cache: Path) -> None:
    for _ in range(2):
        with extract_archive(archive, cache=cache, emit=silent, deadline=Deadline.after(MINUTE)) as extracted:
            assert extracted.target.is_dir()
        prune_archives(cache, deadline=Deadline.after(MINUTE), keep=0)

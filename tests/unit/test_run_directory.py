"""A run's directories: private, cleared up at the end, and after runs that were killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from vmrunner.events import Event, Note, silent
from vmrunner.host.paths import cache_dir, runs_dir
from vmrunner.host.process_identity import ProcessIdentity, identity_of
from vmrunner.run.directory import RunDirectory, open_run_directory, reap_leftovers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories of vmrunner's own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in the place of a QEMU that was left over."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def scratches() -> Path:
    directory = cache_dir() / "scratch"
    directory.mkdir(exist_ok=True)
    return directory


def leftover(name: str = "20200101-000000-abc") -> Path:
    """The scratch space of a run whose vmrunner is dead: nobody holds its lock."""
    scratch = scratches() / name
    (scratch / "in").mkdir(parents=True)
    (scratch / "owner.lock").touch()
    return scratch


def record_qemu(scratch: Path, pid: int, **changes: object) -> None:
    """Note a process as a run does with its QEMU; `changes` are fields of the record."""
    identity = identity_of(pid)
    assert identity
    (scratch / "qemu.json").write_text(json.dumps(asdict(identity) | changes))


def names_of_runs() -> list[str]:
    return sorted(path.name for path in runs_dir().iterdir())


def test_scratch_is_gone_at_the_end_and_the_rest_stays() -> None:
    with open_run_directory(silent) as run:
        run.overlay.write_text("disk")
        assert run.inbox.is_dir()
        assert run.out.is_dir()
        run.report.write_text("{}")
    assert not run.scratch.exists()
    assert run.report.read_text() == "{}"
    assert list(scratches().iterdir()) == []


def test_scratch_is_gone_after_a_failure_too() -> None:
    seen: list[RunDirectory] = []

    def fail() -> None:
        with open_run_directory(silent) as run:
            seen.append(run)
            run.inbox.chmod(0o500)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not seen[0].scratch.exists()
    assert seen[0].path.is_dir()


def test_everything_is_private() -> None:
    with open_run_directory(silent) as run:
        for path in (run.path, run.scratch, run.out, run.inbox):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in (run.nextest_log, run.stdout_log, run.scratch / "owner.lock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_runs_have_names_of_their_own_that_sort_by_time() -> None:
    with open_run_directory(silent) as one, open_run_directory(silent) as other:
        assert one.id != other.id
        assert one.id[:8] == time.strftime("%Y%m%d")
        assert one.path.name == one.scratch.name == one.id


def test_the_guest_appends_to_our_logs_and_cannot_take_them_away() -> None:
    with open_run_directory(silent) as run:
        theirs = run.out / "nextest.log"
        assert theirs.samefile(run.nextest_log)
        assert (run.out / "stdout.log").samefile(run.stdout_log)
        with theirs.open("a") as log:
            log.write("PASS\n")
        theirs.unlink()
        theirs.symlink_to("/etc/passwd")
        assert run.nextest_log.read_text() == "PASS\n"
        assert not run.nextest_log.is_symlink()


def test_what_a_killed_run_left_is_cleared_up_and_told() -> None:
    scratch = leftover()
    events: list[Event] = []
    with open_run_directory(events.append):
        assert not scratch.exists()
    assert events == [Note("cleared up after the run 20200101-000000-abc, which was killed")]


def test_a_live_owner_is_left_alone() -> None:
    events: list[Event] = []
    with open_run_directory(silent) as run, open_run_directory(events.append):
        assert run.inbox.is_dir()
        assert events == []


def test_the_lock_is_never_seen_unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock
    seen: list[bool] = []

    def watch(fd: int, operation: int) -> None:
        seen.append((Path(f"/proc/self/fd/{fd}").readlink()).name == "owner.lock")
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", watch)
    with open_run_directory(silent) as run:
        assert (run.scratch / "owner.lock").exists()
    assert seen == [False]


def test_the_qemu_of_a_killed_run_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    scratch = leftover()
    record_qemu(scratch, sleeper.pid)
    reap_leftovers(scratches(), silent)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not scratch.exists()


def test_the_machines_of_a_killed_runs_shards_are_ended(sleeper: subprocess.Popen[bytes]) -> None:
    scratch = leftover()
    shard = scratch / "shard-2"
    shard.mkdir()
    record_qemu(shard, sleeper.pid)
    reap_leftovers(scratches(), silent)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not scratch.exists()


@pytest.mark.parametrize("changes", [{"start_ticks": 1}, {"boot_id": "that of yesterday"}])
def test_a_stranger_who_got_the_same_process_id_is_left_alone(
    sleeper: subprocess.Popen[bytes], changes: dict[str, object]
) -> None:
    scratch = leftover()
    record_qemu(scratch, sleeper.pid, **changes)
    reap_leftovers(scratches(), silent)
    assert sleeper.poll() is None
    assert not scratch.exists()


def test_a_run_notes_its_qemu_so_that_the_next_one_finds_it(sleeper: subprocess.Popen[bytes]) -> None:
    with open_run_directory(silent) as run:
        run.remember_qemu(sleeper.pid)
        record = json.loads((run.scratch / "qemu.json").read_text())
    assert ProcessIdentity(**record) == identity_of(sleeper.pid)
    assert sleeper.poll() is None


def test_a_shard_has_places_of_its_own_below_those_of_the_run() -> None:
    with open_run_directory(silent) as run:
        one, other = run.shard(1), run.shard(2)
        assert (one.id, other.id) == (f"{run.id}-1", f"{run.id}-2")
        assert (one.path, one.scratch) == (run.path / "shard-1", run.scratch / "shard-1")
        assert {stat.S_IMODE(path.stat().st_mode) for path in (one.path, one.scratch, one.out)} == {0o700}
        assert one.nextest_log.samefile(one.out / "nextest.log")
        assert not one.nextest_log.samefile(other.nextest_log)
        assert not one.nextest_log.samefile(run.nextest_log)
        names = {directory.places.name for directory in (run, one, other)}
        assert names == {f"vmrunner-{run.id}", f"vmrunner-{run.id}-1", f"vmrunner-{run.id}-2"}
    assert not one.scratch.exists()
    assert one.path.is_dir()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"pid": 1, "created": 1.5}',
        '{"pid": "x", "start_ticks": 1, "boot_id": "y"}',
        '{"pid": 999999999, "start_ticks": 1, "boot_id": "y"}',
        '{"pid": -1, "start_ticks": 1, "boot_id": "y"}',
    ],
)  # fmt: skip
def test_a_record_that_says_nothing_is_no_obstacle(text: str) -> None:
    scratch = leftover()
    (scratch / "qemu.json").write_text(text)
    reap_leftovers(scratches(), silent)
    assert not scratch.exists()


def test_a_run_that_was_really_killed() -> None:
    code = (
        "import os, signal\n"
        "from vmrunner.run.directory import open_run_directory\n"
        "with open_run_directory(print) as run:\n"
        "    print(run.id, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    name = killed.stdout.strip()
    assert killed.returncode == -9
    assert (scratches() / name).is_dir()
    reap_leftovers(scratches(), silent)
    assert not (scratches() / name).exists()
    assert (runs_dir() / name).is_dir()


def test_a_directory_without_a_lock_is_given_time_to_get_one() -> None:
    young, old = scratches() / "young", scratches() / "old"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 120, time.time() - 120))
    reap_leftovers(scratches(), silent)
    assert young.is_dir()
    assert not old.exists()


def test_what_is_no_directory_is_left_alone() -> None:
    (scratches() / "file").touch()
    (scratches() / "link").symlink_to("nowhere")
    os.utime(scratches() / "file", (0, 0))
    reap_leftovers(scratches(), silent)
    assert (scratches() / "file").exists()
    assert (scratches() / "link").is_symlink()


def test_the_oldest_runs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.run.directory.KEPT_RUNS", 3)
    for number in range(5):
        (runs_dir() / f"2020010{number + 1}-000000-abc" / "out").mkdir(parents=True)
    (runs_dir() / "a-file").touch()
    with open_run_directory(silent) as run:
        assert names_of_runs() == ["20200104-000000-abc", "20200105-000000-abc", run.id, "a-file"]


def test_an_old_run_that_is_under_way_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.run.directory.KEPT_RUNS", 1)
    with open_run_directory(silent) as one, open_run_directory(silent) as other:
        assert one.path.is_dir()
        assert other.path.is_dir()

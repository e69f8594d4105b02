"""Files that other processes may meet: whole or not at all, private, and locked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vmrunner.errors import RunTimeout, exit_code_of
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import directory_made_atomically, locked, remove_tree, sync_files, write_atomically


def test_write_makes_a_private_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", "text")
    assert (tmp_path / "f").read_text() == "text"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_write_takes_bytes_and_a_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"\x00\xff", mode=0o755)
    assert (tmp_path / "f").read_bytes() == b"\x00\xff"
    assert (tmp_path / "f").stat().st_mode & 0o111


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", "old")
    write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "new"


def test_reader_of_the_old_file_keeps_the_old_content(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", "old")
    with (tmp_path / "f").open() as reader:
        write_atomically(tmp_path / "f", "new")
        assert reader.read() == "old"


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_write_through_a_planted_link_does_not_happen(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "f").symlink_to(victim)
    write_atomically(tmp_path / "f", "new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "f").is_symlink()


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    contents = [str(number) * 100_000 for number in range(4)]
    broken: list[OSError] = []

    def write(content: str) -> None:
        try:
            for _ in range(10):
                write_atomically(tmp_path / "f", content)
        except OSError as error:
            broken.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert (tmp_path / "f").read_text() in contents


def test_directory_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with directory_made_atomically(target) as directory:
        (directory / "root.img").write_text("x")
        assert not target.exists()
        assert directory.parent == tmp_path
    assert [path.name for path in target.iterdir()] == ["root.img"]
    assert target.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


@pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt()])
def test_failed_block_leaves_nothing(tmp_path: Path, problem: BaseException) -> None:
    def build() -> None:
        with directory_made_atomically(tmp_path / "image") as directory:
            (directory / "half").touch()
            raise problem

    with pytest.raises(type(problem)):
        build()
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_keeps_the_firsts_directory(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with directory_made_atomically(target) as directory:
        (directory / "ours").touch()
        target.mkdir()
        (target / "theirs").touch()
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_target_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "image"

    def build() -> None:
        with directory_made_atomically(target):
            target.write_text("in the way")

    with pytest.raises(OSError, match="image"):
        build()
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_removed_tree_includes_read_only_directories(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    for directory in (deep, deep.parent):
        directory.chmod(0o500)
    remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")


def test_removing_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "precious" / "file").exists()
    assert not (tmp_path / "tree").exists()


def test_lock_can_be_taken_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", deadline=Deadline.after(1)):
            pass
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_lock_is_let_go_when_the_block_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path / "lock", deadline=Deadline.after(1)):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    with locked(tmp_path / "lock", deadline=Deadline.after(0)):
        pass


def hold(lock: Path) -> subprocess.Popen[bytes]:
    """Another process that holds the lock until its standard input is closed."""
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, os.fspath(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    return child


def test_held_lock_is_waited_for_and_told_once(tmp_path: Path) -> None:
    waits: list[str] = []
    with hold(tmp_path / "lock") as other:

        def release() -> None:
            waits.append("waiting")
            assert other.stdin is not None
            other.stdin.close()

        with locked(tmp_path / "lock", deadline=Deadline.after(10), on_wait=release):
            pass
    assert waits == ["waiting"]


def test_lock_held_too_long_is_a_timeout_that_names_it(tmp_path: Path) -> None:
    def wait() -> None:
        with locked(tmp_path / "lock", deadline=Deadline.after(0.2)):
            pass

    with hold(tmp_path / "lock") as other:
        with pytest.raises(RunTimeout, match="lock until the time was up") as caught:
            wait()
        other.kill()
    assert exit_code_of(caught.value) == 25


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with hold(tmp_path / "lock") as other:
        other.kill()
    with locked(tmp_path / "lock", deadline=Deadline.after(1)):
        pass


def test_lock_file_that_its_holder_removes_is_made_anew(tmp_path: Path) -> None:
    """Else two would hold a lock each: one the file that is gone, one the new file of that name."""
    with hold(tmp_path / "lock") as other:

        def release() -> None:
            (tmp_path / "lock").unlink()
            assert other.stdin is not None
            other.stdin.close()

        with locked(tmp_path / "lock", deadline=Deadline.after(10), on_wait=release):
            assert (tmp_path / "lock").exists()
            with (
                pytest.raises(RunTimeout),
                locked(tmp_path / "lock", deadline=Deadline.after(0.1)),
            ):
                pass


def test_files_are_synced_and_directories_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "directory").mkdir()
    sync_files(tmp_path)
    assert (tmp_path / "file").read_text() == "content"

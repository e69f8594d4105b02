"""Directories by key: an entry is there as a whole or not at all, used ones stay, leftovers of the dead go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from other_process import other_process

from vmrunner.errors import RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.host.keyed_store import IN_USE, EntryGone, KeyedStore, bytes_on_disk, held, is_held


@pytest.fixture
def store(tmp_path: Path) -> KeyedStore:
    """An empty store."""
    return KeyedStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> Path:
    """The directory of the store; who has a store makes it."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def make(store: KeyedStore, key: str) -> Path:
    with store.making(key) as directory:
        (directory / "file").write_text(key)
    return store.entry(key)


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".locks")


def in_the_store(root: Path, then: str) -> str:
    """Code for another process that has the store as `store`."""
    lines = [
        "import sys",
        "from pathlib import Path",
        "from vmrunner.host.deadline import Deadline",
        "from vmrunner.host.keyed_store import KeyedStore, held",
        f"store = KeyedStore(Path({str(root)!r}))",
        then,
    ]
    return "\n".join(lines)


HOLD = "with held(store.entry('a')):\n    print('ready', flush=True)\n    sys.stdin.read()"
MAKE = (
    "with store.making('a') as directory:\n"
    "    (directory / 'half').touch()\n"
    "    print('ready', flush=True)\n"
    "    sys.stdin.read()"
)
LOCK = (
    "with store.making_lock('a', deadline=Deadline.after(5), on_wait=lambda: None):\n"
    "    print('ready', flush=True)\n"
    "    sys.stdin.read()"
)


def test_an_entry_appears_only_when_it_is_complete(store: KeyedStore) -> None:
    with store.making("a") as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "file").write_text("x")
        assert not store.entry("a").exists()
        assert store.entries() == []
    assert store.entries() == [store.entry("a")]
    assert (store.entry("a") / "file").read_text() == "x"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_in_the_making_leaves_nothing(
    store: KeyedStore, root: Path, error: type[BaseException]
) -> None:
    def make_half() -> None:
        with store.making("a") as directory:
            (directory / "file").touch()
            raise error

    with pytest.raises(error):
        make_half()
    assert visible(root) == []


def test_what_this_process_left_half_made_is_no_start_for_the_next(store: KeyedStore, root: Path) -> None:
    leftover = root / f".tmp-a-{os.getpid()}"
    leftover.mkdir()
    (leftover / "stale").touch()
    assert sorted(path.name for path in make(store, "a").iterdir()) == ["file"]


def test_leftovers_are_removed_where_their_process_is_dead(store: KeyedStore, root: Path) -> None:
    with other_process(in_the_store(root, MAKE)) as maker:
        (unfinished,) = root.glob(".tmp-*")
        assert store.remove_leftovers() == []
        maker.kill()
        maker.wait(10)
        assert store.remove_leftovers() == [unfinished]
    assert visible(root) == []


def test_only_one_process_makes_an_entry_and_the_next_is_told_that_it_waits(
    store: KeyedStore, root: Path
) -> None:
    waits: list[str] = []
    with (
        other_process(in_the_store(root, LOCK)),
        pytest.raises(RunTimeout),
        store.making_lock("a", deadline=Deadline.after(0.2), on_wait=lambda: waits.append("x")),
    ):
        pass
    assert waits == ["x"]
    with store.making_lock("a", deadline=Deadline.after(1), on_wait=lambda: waits.append("y")):
        assert waits == ["x"]


def test_a_maker_that_is_killed_gives_its_right_to_the_next(store: KeyedStore, root: Path) -> None:
    with other_process(in_the_store(root, LOCK)) as maker:
        maker.kill()
        with store.making_lock("a", deadline=Deadline.after(5), on_wait=lambda: None):
            pass


def test_an_entry_that_another_process_holds_is_not_removed(store: KeyedStore, root: Path) -> None:
    entry = make(store, "a")
    with other_process(in_the_store(root, HOLD)), held(entry):
        assert is_held(entry)
        assert not store.remove(entry)
        assert (entry / "file").exists()
    assert not is_held(entry)
    assert store.remove(entry)
    assert visible(root) == []


def test_a_holder_that_is_killed_holds_nothing(store: KeyedStore, root: Path) -> None:
    entry = make(store, "a")
    with other_process(in_the_store(root, HOLD)) as holder:
        holder.kill()
        holder.wait(10)
        assert not is_held(entry)
        assert store.remove(entry)


def test_an_entry_that_is_no_good_goes_held_or_not_and_open_files_of_it_stay_readable(
    store: KeyedStore, root: Path
) -> None:
    entry = make(store, "a")
    with held(entry), (entry / "file").open() as file:
        store.discard("a")
        assert not entry.exists()
        assert file.read() == "a"
        make(store, "a")
    assert visible(root) == ["a"]


def test_to_discard_what_is_not_there_is_no_error(store: KeyedStore, root: Path) -> None:
    store.discard("a")
    assert visible(root) == []


def test_holding_notes_the_time_of_the_use(store: KeyedStore) -> None:
    entry = make(store, "a")
    assert not is_held(entry)
    with held(entry):
        pass
    os.utime(entry / IN_USE, (1, 1))
    with held(entry):
        assert (entry / IN_USE).stat().st_mtime > 1


def test_an_entry_that_is_gone_cannot_be_held(store: KeyedStore) -> None:
    entry = make(store, "a")
    store.remove(entry)
    with pytest.raises(EntryGone), held(entry):
        pass
    assert not entry.exists()


def test_an_entry_that_goes_while_it_is_waited_for_cannot_be_held(
    store: KeyedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make(store, "a")
    # What happens to a process that opened the file just before another one removed the entry.
    monkeypatch.setattr("vmrunner.host.keyed_store.fcntl.flock", lambda *_: store.discard("a"))
    with pytest.raises(EntryGone), held(entry):
        pass


def test_entries_are_neither_locks_nor_files_nor_unfinished(store: KeyedStore, root: Path) -> None:
    make(store, "a")
    (root / "stray").touch()
    with store.making("b"):
        assert store.entries() == [store.entry("a")]


def test_bytes_on_disk_count_what_is_linked_to_while_it_is_there(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    (tmp_path / "far").write_bytes(b"x" * 100_000)
    (entry / "link").symlink_to(tmp_path / "far")
    assert bytes_on_disk(entry) >= 100_000
    (tmp_path / "far").unlink()
    assert bytes_on_disk(entry) == 0


def test_bytes_on_disk_do_not_count_holes(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "full").write_bytes(b"x" * 100_000)
    assert 100_000 <= bytes_on_disk(tmp_path) < 1 << 20

"""The store: what looks like an image is one, used images stay, leftovers of the dead go."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sample_images import write_image

from vmrunner.errors import ImageError, ImageNotFound, RunTimeout, exit_code_of
from vmrunner.host.deadline import Deadline
from vmrunner.image import store
from vmrunner.image.manifest import Image, open_image

DAY = 86400.0


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = tmp_path / "vmrunner/images"
    directory.mkdir(parents=True)
    return directory


def _stored(digest: str, *, age: float = 0.0) -> Image:
    image = write_image(store.image_directory(digest), digest=digest)
    moment = (image.directory / "manifest.json").stat().st_mtime - age
    os.utime(image.directory / "manifest.json", (moment, moment))
    return image


@contextmanager
def _other_process(code: str) -> Iterator[None]:
    """Run `code` in another Python until the block ends; it has printed a line when the block starts."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        yield
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def _holder(image: Image) -> str:
    return f"""
        import sys
        from pathlib import Path
        from vmrunner.image import store
        from vmrunner.image.manifest import open_image
        with store.hold(open_image(Path({str(image.directory)!r}))):
            print("ready", flush=True)
            sys.stdin.read()
    """


def test_build_becomes_an_image(images: Path) -> None:
    with store.build_directory("d1") as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        write_image(directory)
        assert not store.image_directory("d1").exists()
    open_image(store.image_directory("d1"))
    assert not list(images.glob(".tmp-*"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_build_leaves_nothing(images: Path, error: type[BaseException]) -> None:
    def build() -> None:
        with store.build_directory("d1") as directory:
            write_image(directory)
            raise error

    with pytest.raises(error):
        build()
    assert [path.name for path in images.iterdir()] == [".locks"]


def test_build_under_way_is_not_listed_and_not_removed(images: Path) -> None:
    with store.build_directory("d1") as directory:
        assert store.list_images() == []
        assert store.remove_leftovers() == []
        assert directory.is_dir()


def test_build_of_another_live_process_is_not_removed(images: Path) -> None:
    code = """
        import sys
        from vmrunner.image import store
        with store.build_directory("d1") as directory:
            (directory / "part").write_text("x")
            print("ready", flush=True)
            sys.stdin.read()
            (directory / "rest").write_text("x")
    """
    with _other_process(code):
        assert store.remove_leftovers() == []
        assert store.prune() == []
    assert (store.image_directory("d1") / "rest").exists()


def test_leftover_of_a_dead_process_is_removed(images: Path) -> None:
    leftover = images / ".tmp-d1-999999"
    (leftover / "tree/locked").mkdir(parents=True)
    (leftover / "tree/locked/file").write_text("x")
    (leftover / "tree/locked").chmod(0o500)
    assert store.remove_leftovers() == [leftover]
    assert not leftover.exists()


def test_second_builder_waits_and_says_so() -> None:
    code = """
        import sys
        from vmrunner.host.deadline import Deadline
        from vmrunner.image import store
        with store.build_lock("d1", deadline=Deadline.after(5), on_wait=lambda: None):
            print("ready", flush=True)
            sys.stdin.read()
    """
    waits: list[str] = []
    with (
        _other_process(code),
        pytest.raises(RunTimeout),
        store.build_lock("d1", deadline=Deadline.after(0.2), on_wait=lambda: waits.append("x")),
    ):
        pass
    assert waits == ["x"]


def test_builds_of_two_images_do_not_wait_for_each_other() -> None:
    waits: list[str] = []
    with (
        store.build_lock("d1", deadline=Deadline.after(1), on_wait=lambda: waits.append("x")),
        store.build_lock("d2", deadline=Deadline.after(1), on_wait=lambda: waits.append("x")),
    ):
        assert waits == []


def test_list_has_the_last_used_first() -> None:
    _stored("old", age=2 * DAY)
    _stored("new", age=DAY)
    assert [stored.digest for stored in store.list_images()] == ["new", "old"]
    with store.hold(open_image(store.image_directory("old"))):
        pass
    first = store.list_images()[0]
    assert (first.digest, first.name) == ("old", "debian")
    assert first.last_used > first.created + DAY
    assert first.size > 0


def test_damaged_image_is_listed_so_that_it_can_be_removed() -> None:
    (store.image_directory("bad")).mkdir()
    assert [(stored.digest, stored.name) for stored in store.list_images()] == [("bad", "?")]
    assert store.remove("bad").digest == "bad"
    assert store.list_images() == []


def test_remove_by_the_start_of_a_digest() -> None:
    _stored("abcd")
    _stored("axyz")
    assert store.remove("ab").digest == "abcd"
    assert [stored.digest for stored in store.list_images()] == ["axyz"]


def test_find_by_the_start_of_a_digest() -> None:
    _stored("abcd")
    _stored("axyz")
    assert store.find("ax").digest == "axyz"
    assert len(store.list_images()) == 2


@pytest.mark.parametrize(("start", "problem"), [("a", "several images"), ("q", "no image"), ("", "no image")])
def test_remove_needs_exactly_one(start: str, problem: str) -> None:
    _stored("abcd")
    _stored("axyz")
    with pytest.raises(ImageNotFound, match=problem) as caught:
        store.remove(start)
    assert exit_code_of(caught.value) == 21
    assert len(store.list_images()) == 2


def test_used_image_is_neither_removed_nor_pruned() -> None:
    image = _stored("abcd", age=DAY)
    with _other_process(_holder(image)):
        assert store.prune() == store.prune(dry_run=True) == []
        with pytest.raises(ImageError, match="in use by a running machine") as caught:
            store.remove("abcd")
        assert "vmrunner ps" in (caught.value.hint or "")
        open_image(image.directory)
    assert [stored.digest for stored in store.prune()] == ["abcd"]


def test_two_may_hold_an_image() -> None:
    image = _stored("abcd")
    with _other_process(_holder(image)), store.hold(image):
        assert store.prune() == []
    assert image.directory.is_dir()


def test_held_again_in_the_same_process() -> None:
    image = _stored("abcd")
    with store.hold(image), store.hold(image):
        pass
    assert store.prune()


def test_hold_of_an_image_that_was_removed() -> None:
    image = _stored("abcd")
    store.remove("abcd")
    with pytest.raises(ImageNotFound, match="removed meanwhile"), store.hold(image):
        pass
    assert not image.directory.exists()


def test_prune_keeps_what_was_used_lately(images: Path) -> None:
    _stored("old", age=10 * DAY)
    _stored("new", age=DAY)
    assert [stored.digest for stored in store.prune(unused_for=5 * DAY, dry_run=True)] == ["old"]
    assert (images / "old").is_dir()
    assert [stored.digest for stored in store.prune(unused_for=5 * DAY)] == ["old"]
    assert [path.name for path in images.iterdir() if path.name != ".locks"] == ["new"]


def test_dry_run_changes_nothing(images: Path) -> None:
    _stored("old", age=DAY)
    before = sorted(path.name for path in images.rglob("*"))
    store.prune(dry_run=True)
    assert sorted(path.name for path in images.rglob("*")) == before


def test_prune_removes_leftovers(images: Path) -> None:
    (images / ".tmp-d1-999999").mkdir()
    assert store.prune() == []
    assert not (images / ".tmp-d1-999999").exists()

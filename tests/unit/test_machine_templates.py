"""Templates on disk: one that is whole is found, any other is told from it, and the store stays in its bounds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from other_process import other_process
from sample_templates import LOGIN, write_template

from vmrunner.machine import templates
from vmrunner.machine.template_key import FORMAT_VERSION
from vmrunner.machine.templates import TemplateUnusable

KEY = "a" * 64
BLOCK = 1 << 20
DAY = 86400.0


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of all templates, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return templates.directory()


def aged(directory: Path, seconds: float) -> Path:
    """The template as if it had been made or used last that long ago."""
    moment = time.time() - seconds
    for path in (directory, directory / ".in-use"):
        if path.exists():
            os.utime(path, (moment, moment))
    return directory


def names(stored: list[templates.StoredTemplate]) -> list[str]:
    return [item.key for item in stored]


def rewrite_record(directory: Path, **changes: object) -> None:
    """Change single fields of a record as they are on disk, whatever a record of today may hold."""
    path = directory / "template.json"
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("x")


def test_there_is_none_where_none_was_made() -> None:
    assert templates.find_template(KEY) is None
    assert templates.list_templates() == []


def test_a_finished_template_is_found_with_all_that_it_takes_to_restore_it() -> None:
    directory = write_template(KEY)
    found = templates.find_template(KEY)
    assert found is not None
    assert found.directory == directory == templates.path_of(KEY)
    assert [path.name for path in (found.ram, found.state, found.disk, found.overlay)] == [
        "ram", "state", "disk.qcow2", "overlay.qcow2",
    ]  # fmt: skip
    assert all(path.is_file() for path in (found.ram, found.state, found.disk, found.overlay))
    assert found.login_key == LOGIN
    assert found.record.guest_clock == 1_800_000_000.5


def test_it_is_private() -> None:
    directory = write_template(KEY)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "template.json").stat().st_mode & 0o777 == 0o600


def test_it_is_not_there_before_it_is_finished() -> None:
    with templates.making(KEY) as directory:
        (directory / "ram").touch()
        assert templates.find_template(KEY) is None
        assert templates.list_templates() == []


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda it: (it / "template.json").unlink(), "its record cannot be read (No such file"),
    "empty record": (lambda it: (it / "template.json").write_text(""), "of another version or damaged"),
    "half a record": (
        lambda it: (it / "template.json").write_text((it / "template.json").read_text()[:100]),
        "of another version or damaged",
    ),
    "record of something else": (lambda it: (it / "template.json").write_text("[]"), "damaged"),
    "record with more in it": (lambda it: rewrite_record(it, surprise=1), "of another version or damaged"),
    "record with less in it": (lambda it: rewrite_record(it, public_key=None), "another version or damaged"),
    "older format": (lambda it: rewrite_record(it, format_version=FORMAT_VERSION - 1), "of another version"),
    "newer format": (lambda it: rewrite_record(it, format_version=FORMAT_VERSION + 1), "of another version"),
    "record of another key": (lambda it: rewrite_record(it, key="b" * 64), "of another version"),
    "no stamps": (lambda it: rewrite_record(it, files={}), "its file `ram` was changed"),
    "no memory": (lambda it: (it / "ram").unlink(), "its file `ram` is missing"),
    "memory cut off": (lambda it: (it / "ram").write_bytes(b""), "its file `ram` was changed (0 bytes)"),
    "no state": (lambda it: (it / "state").unlink(), "its file `state` is missing"),
    "state grown": (lambda it: append(it / "state"), "its file `state` was changed (6 bytes)"),
    "disk written to": (lambda it: os.utime(it / "disk.qcow2", (1, 1)), "`disk.qcow2` was changed"),
    "no overlay": (lambda it: (it / "overlay.qcow2").unlink(), "its file `overlay.qcow2` is missing"),
    "no login key": (lambda it: (it / "login-key").unlink(), "its file `login-key` is missing"),
    "a file in its place": (
        lambda it: it.rename(it.with_name(".tmp-away")).with_name(it.name).write_text(""),
        "its record cannot be read (Not a directory",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_told_from_a_template(damage: str) -> None:
    directory = write_template(KEY, size=10)
    inflict, said = DAMAGES[damage]
    inflict(directory)
    with pytest.raises(TemplateUnusable) as caught:
        templates.find_template(KEY)
    assert said in str(caught.value)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a file in its place"])
def test_what_is_not_whole_can_be_discarded_and_made_again(damage: str) -> None:
    DAMAGES[damage][0](write_template(KEY, size=10))
    templates.discard(KEY)
    assert templates.find_template(KEY) is None
    write_template(KEY)
    assert templates.find_template(KEY) is not None


def test_holding_keeps_it_from_being_pruned_and_notes_the_use() -> None:
    aged(write_template(KEY, size=BLOCK), 10 * DAY)
    template = templates.find_template(KEY)
    assert template is not None
    with templates.hold(template), templates.hold(template):
        assert templates.prune(keep_bytes=0) == []
    assert templates.list_templates()[0].last_used > time.time() - DAY
    assert names(templates.prune(keep_bytes=0)) == [KEY]


def test_another_process_that_holds_it_keeps_it_too(root: Path) -> None:
    write_template(KEY, size=BLOCK)
    code = f"""
        import os, sys
        os.environ["XDG_CACHE_HOME"] = {str(root.parents[1])!r}
        from vmrunner.machine import templates
        with templates.hold(templates.find_template({KEY!r})):
            print("ready", flush=True)
            sys.stdin.read()
    """
    with other_process(code):
        assert templates.prune(keep_bytes=0) == []
    assert names(templates.prune(keep_bytes=0)) == [KEY]


def test_one_that_went_meanwhile_cannot_be_held() -> None:
    write_template(KEY)
    template = templates.find_template(KEY)
    assert template is not None
    templates.discard(KEY)
    with pytest.raises(TemplateUnusable, match="it was removed meanwhile"), templates.hold(template):
        pass


def test_the_list_has_the_one_used_last_first_and_its_size_on_disk() -> None:
    aged(write_template("old", size=BLOCK), 2 * DAY)
    aged(write_template("new"), DAY)
    first, second = templates.list_templates()
    assert (first.key, second.key) == ("new", "old")
    assert second.size >= BLOCK > first.size
    assert second.record is not None
    assert second.record.image == "debian"
    assert abs(time.time() - DAY - first.last_used) < 60


def test_one_that_cannot_be_read_is_listed_without_a_record() -> None:
    (write_template(KEY) / "template.json").write_text("{")
    (stored,) = templates.list_templates()
    assert (stored.key, stored.record) == (KEY, None)


def three_of_a_megabyte() -> list[Path]:
    return [
        aged(write_template(name, size=BLOCK), days * DAY) for name, days in (("x", 3), ("y", 2), ("z", 1))
    ]


def test_those_used_longest_ago_go_until_the_rest_fits(root: Path) -> None:
    three_of_a_megabyte()
    assert names(templates.prune(keep_bytes=5 * BLOCK)) == []
    assert names(templates.prune(keep_bytes=int(2.5 * BLOCK), dry_run=True)) == ["x"]
    assert len(templates.list_templates()) == 3
    assert names(templates.prune(keep_bytes=int(2.5 * BLOCK))) == ["x"]
    assert names(templates.list_templates()) == ["z", "y"]
    assert sorted(path.name for path in root.iterdir()) == [".locks", "y", "z"]


def test_use_counts_and_not_age() -> None:
    three_of_a_megabyte()
    oldest = templates.find_template("x")
    assert oldest is not None
    with templates.hold(oldest):
        pass
    assert names(templates.prune(keep_bytes=int(1.5 * BLOCK))) == ["z", "y"]


def test_those_that_somebody_needs_stay_though_they_are_old() -> None:
    oldest, _, _ = three_of_a_megabyte()
    assert names(templates.prune(keep_bytes=0, keep=[oldest])) == ["z", "y"]
    assert names(templates.list_templates()) == ["x"]


def test_those_used_lately_stay_though_there_is_no_room() -> None:
    three_of_a_megabyte()
    assert names(templates.prune(keep_bytes=0, unused_for=1.5 * DAY)) == ["y", "x"]


def test_what_killed_makers_left_goes(root: Path) -> None:
    leftover = root / f".tmp-{KEY}-999999"
    leftover.mkdir()
    (leftover / "ram").write_bytes(b"r" * 1000)
    assert templates.prune(dry_run=True) == []
    assert leftover.exists()
    assert templates.prune() == []
    assert not leftover.exists()

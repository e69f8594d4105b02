"""What a long-lived VM printed, read at once and followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sample_vms import process, use_home, write_vm

from vmrunner.errors import UsageError
from vmrunner.host.deadline import Deadline
from vmrunner.host.process_identity import ProcessIdentity
from vmrunner.machine import registry
from vmrunner.machine.vm_record import VmRecord, write_record
from vmrunner.run.vm_logs import LOG_KINDS, read_logs


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path, monkeypatch)


@pytest.fixture
def at_each_look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do the given things between one look at the logs and the next, without waiting."""

    def prepare(*steps: Callable[[], object]) -> None:
        rest = iter(steps)
        monkeypatch.setattr(Deadline, "pause", lambda *_: next(rest)())

    return prepare


def with_logs() -> VmRecord:
    record = write_vm("db")
    record.directory.serial_log.write_text("booted\n")
    record.directory.qemu_log.write_text("warning: old\n")
    return record


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_all_there_is_comes_at_once(tmp_path: Path) -> None:
    with_logs()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "nextest.log").write_text("PASS\n")
    registry.note_run("db", tmp_path / "run")
    assert list(read_logs("db", LOG_KINDS, follow=False)) == [
        ("serial", b"booted\n"),
        ("unit", b"PASS\n"),
        ("qemu", b"warning: old\n"),
    ]


def test_one_kind_alone_and_one_without_a_log() -> None:
    with_logs()
    assert list(read_logs("db", ["qemu"], follow=False)) == [("qemu", b"warning: old\n")]
    assert list(read_logs("db", ["unit"], follow=False)) == []


def test_an_unknown_vm_is_told() -> None:
    with pytest.raises(UsageError, match="there is no VM"):
        list(read_logs("db", LOG_KINDS, follow=True))


def test_following_one_that_does_not_run_ends_at_once() -> None:
    with_logs()
    assert len(list(read_logs("db", LOG_KINDS, follow=True))) == 2


def test_following_shows_what_comes_until_the_vm_ends(
    tmp_path: Path, at_each_look: Callable[..., None]
) -> None:
    record = with_logs()
    run = tmp_path / "next-run"
    run.mkdir()

    def begin_run() -> None:
        add(run / "nextest.log", "START\n")
        registry.note_run("db", run)

    def end_run() -> None:
        add(run / "nextest.log", "PASS\n")
        qemu.end(grace=0)

    with process() as qemu:
        _set_process(record, qemu)
        at_each_look(
            lambda: add(record.directory.serial_log, "more\n"),
            lambda: record.directory.qemu_log.write_text("new\n"),
            begin_run,
            end_run,
        )
        found = list(read_logs("db", LOG_KINDS, follow=True))
    assert found[2:] == [
        ("serial", b"more\n"),
        ("qemu", b"new\n"),
        ("unit", b"START\n"),
        ("unit", b"PASS\n"),
    ]


def test_following_ends_where_the_vm_is_removed(at_each_look: Callable[..., None]) -> None:
    record = with_logs()
    with process() as qemu:
        _set_process(record, qemu)
        at_each_look(lambda: registry.erase("db"))
        assert len(list(read_logs("db", LOG_KINDS, follow=True))) == 2


def _set_process(record: VmRecord, qemu: ProcessIdentity) -> None:
    write_record(record.changed(process=qemu, wanted="running"))

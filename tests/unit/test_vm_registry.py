"""The long-lived VMs of a user: found, locked, held, removed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sample_vms import dead_process, process, use_home, write_vm

from vmrunner.errors import RunTimeout, UsageError, VmBusy, VmDamaged, VmNotRunning, exit_code_of
from vmrunner.events import Event, Note, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import runtime_dir, templates_dir, vms_dir
from vmrunner.host.process_identity import identity_of
from vmrunner.machine import registry
from vmrunner.machine.vm_record import VmDirectory, write_record

IN_ANOTHER_PROCESS = """
import sys, time
from vmrunner.events import silent
from vmrunner.host.deadline import Deadline
from vmrunner.machine import registry
with {block}:
    print(flush=True)
    time.sleep(float(sys.argv[1]))
"""
CHANGES = 'registry.changing("db", emit=silent)'
HOLDS = 'registry.holding("db", wait=True, run_id="20260101-000000-abcdef", emit=silent, deadline=Deadline.after(5))'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path, monkeypatch)


@contextmanager
def another_process(block: str, seconds: float = 60) -> Iterator[int]:
    """A process that is in this `with` block for so long; its id."""
    code = IN_ANOTHER_PROCESS.format(block=block)
    child = subprocess.Popen([sys.executable, "-c", code, str(seconds)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        with child.stdout as ready:
            assert ready.readline()
        yield child.pid
    finally:
        child.kill()
        child.wait()


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_names_are_those_of_directories_with_a_record() -> None:
    write_vm("b")
    write_vm("a")
    (vms_dir() / "half-made").mkdir()
    with registry.changing("a", emit=silent):
        assert registry.names() == ["a", "b"]
    assert registry.exists("a")
    assert not registry.exists("half-made")


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    write_vm("postgres")
    with pytest.raises(UsageError) as caught:
        registry.find("postgers")
    assert caught.value.message == "there is no VM `postgers`; did you mean `postgres`?"
    assert "vmrunner ps" in str(caught.value.hint)
    assert exit_code_of(caught.value) == 2


def test_a_name_that_cannot_be_is_no_path() -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        registry.find("../../etc")


def test_one_that_is_stopped_or_died_says_how_to_start_it() -> None:
    write_vm("stopped")
    write_vm("died", wanted="running", process=dead_process())
    with pytest.raises(VmNotRunning, match="the VM `stopped` is stopped") as stopped:
        registry.find_running("stopped")
    assert stopped.value.hint == "`vmrunner up stopped` starts it"
    with pytest.raises(VmNotRunning, match="the VM `died` died: its QEMU is gone") as died:
        registry.find_running("died")
    assert "vmrunner up died" in str(died.value.hint)
    assert exit_code_of(died.value) == 23


def test_references_are_the_images_and_templates_of_all_vms() -> None:
    write_vm("one", image_directory=Path("/images/one"), template_key="aaaa")
    write_vm("two", image_directory=Path("/images/two"))
    write_vm("bad").directory.record.write_text("{")
    assert registry.references() == {Path("/images/one"), Path("/images/two"), templates_dir() / "aaaa"}


def test_two_commands_on_one_vm_wait_for_each_other() -> None:
    write_vm("db")
    events: list[Event] = []
    with another_process(CHANGES, seconds=0.4) as pid, registry.changing("db", emit=events.append):
        pass
    assert texts(events) == [f"waiting for another command on `db` (process {pid})"]


def test_a_command_that_does_not_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    write_vm("db")
    monkeypatch.setattr(registry, "CHANGE_SECONDS", 0.2)
    with (
        another_process(CHANGES) as pid,
        pytest.raises(VmBusy, match=rf"another command on the VM `db` \(process {pid}\)") as caught,
        registry.changing("db", emit=silent),
    ):
        pass
    assert exit_code_of(caught.value) == 20


def test_a_killed_command_holds_nothing() -> None:
    write_vm("db")
    events: list[Event] = []
    with another_process(CHANGES):
        pass
    with registry.changing("db", emit=events.append):
        assert events == []


def test_the_lock_of_a_vm_that_is_gone_goes_too() -> None:
    write_vm("db")
    with registry.changing("db", emit=silent):
        registry.erase("db")
    with pytest.raises(UsageError), registry.changing("never", emit=silent):
        registry.find("never")
    assert list((vms_dir() / ".locks").iterdir()) == []


def test_a_test_run_has_the_vm_to_itself() -> None:
    write_vm("db")
    assert registry.holder_of("db") is None
    with another_process(HOLDS) as pid:
        holder = registry.holder_of("db")
        assert holder is not None
        assert (holder.pid, holder.run_id) == (pid, "20260101-000000-abcdef")
        with (
            pytest.raises(VmBusy, match="is taken by the test run 20260101-000000-abcdef") as caught,
            registry.holding("db", wait=False, run_id="x", emit=silent, deadline=Deadline.after(5)),
        ):
            pass
        assert exit_code_of(caught.value) == 20
        assert "--no-wait" in str(caught.value.hint)
    assert registry.holder_of("db") is None


def test_a_second_run_waits_and_says_for_whom() -> None:
    write_vm("db")
    events: list[Event] = []
    with (
        another_process(HOLDS, seconds=0.4) as pid,
        registry.holding("db", wait=True, run_id="x", emit=events.append, deadline=Deadline.after(20)),
    ):
        (text,) = texts(events)
        assert text.startswith(f"waiting for the test run 20260101-000000-abcdef (process {pid}, since ")


def test_waiting_for_a_run_ends_with_the_time() -> None:
    write_vm("db")
    with (
        another_process(HOLDS),
        pytest.raises(RunTimeout),
        registry.holding("db", wait=True, run_id="x", emit=silent, deadline=Deadline.after(0.2)),
    ):
        pass


def test_what_a_run_has_is_not_changed() -> None:
    write_vm("db")
    registry.refuse_held("db", doing="stopped", way_out="wait")
    with another_process(HOLDS), pytest.raises(VmBusy, match="cannot be stopped: the test run") as caught:
        registry.refuse_held("db", doing="stopped", way_out="wait")
    assert caught.value.hint == "wait"


def test_the_last_run_is_remembered() -> None:
    write_vm("db")
    assert registry.last_run("db") is None
    registry.note_run("db", Path("/runs/one"))
    registry.note_run("db", Path("/runs/two"))
    assert registry.last_run("db") == Path("/runs/two")


def test_erasing_leaves_nothing() -> None:
    record = write_vm("db")
    with process(f"filename={record.directory.disk},discard=unmap") as qemu:
        write_record(record.changed(process=qemu, wanted="running"))
        registry.erase("db")
        assert not qemu.alive()
    assert [path for path in vms_dir().iterdir() if path.name[0] != "."] == []
    assert not record.directory.inbox.exists()
    assert list(runtime_dir().iterdir()) == []


def test_erasing_a_damaged_vm_finds_its_process_by_its_disk() -> None:
    directory = write_vm("db").directory
    directory.record.write_text("{")
    with pytest.raises(VmDamaged):
        registry.find("db")
    with process(f"filename={directory.disk},discard=unmap") as qemu, process("filename=/else") as stranger:
        registry.erase("db")
        assert not qemu.alive()
        assert stranger.alive()
    assert not directory.path.exists()


def test_erasing_never_touches_who_has_the_id_now() -> None:
    with process() as stranger:
        write_vm("db", process=dead_process(), wanted="running")
        registry.erase("db")
        assert stranger.alive()


def test_vms_of_dead_owners_are_removed() -> None:
    events: list[Event] = []
    with process() as owner:
        write_vm("theirs", owner=owner)
        write_vm("abandoned", owner=dead_process())
        write_vm("nobodys")
        registry.reap_abandoned(events.append)
        assert registry.names() == ["nobodys", "theirs"]
    assert texts(events) == ["removed the VM `abandoned`: the test run that made it was killed"]


def test_directories_are_private() -> None:
    write_vm("db")
    with registry.changing("db", emit=silent):
        locks = vms_dir() / ".locks"
        assert locks.stat().st_mode & 0o777 == 0o700
        assert (locks / "db").stat().st_mode & 0o777 == 0o600
    assert VmDirectory("db").path.stat().st_mode & 0o777 == 0o700
    assert identity_of(1)

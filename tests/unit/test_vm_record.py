"""The record of a long-lived VM: what it says of its state, and what happens where it cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sample_vms import dead_process, process, sample_record, use_home, write_vm

from vmrunner.errors import HostError, UsageError, VmDamaged, exit_code_of
from vmrunner.machine.vm_record import (
    VmDirectory,
    VmState,
    check_name,
    read_record,
    with_sockets,
    write_record,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path, monkeypatch)


def test_a_record_is_read_as_it_was_written() -> None:
    record = write_vm("db", process=dead_process(), wanted="running")
    assert read_record(VmDirectory("db")) == record
    assert record.directory.record.stat().st_mode & 0o777 == 0o600


def test_it_runs_while_its_process_does() -> None:
    with process() as qemu:
        record = sample_record(process=qemu, wanted="running")
        states = [record.state]
    assert [*states, record.state] == [VmState.RUNNING, VmState.DIED]
    assert record.end == "its QEMU is gone"
    assert record.changed(wanted="stopped").state is VmState.STOPPED


def test_another_process_of_the_same_id_is_not_its_qemu() -> None:
    with process() as stranger:
        stale = replace(stranger, start_ticks=stranger.start_ticks - 1)
        assert sample_record(process=stale, wanted="running").state is VmState.DIED


def test_a_restart_of_the_host_is_told() -> None:
    with process() as qemu:
        former = replace(qemu, boot_id="00000000-0000-0000-0000-000000000000")
        record = sample_record(process=former, wanted="running")
        assert record.state is VmState.DIED
        assert record.end == "this computer was restarted"


def test_a_guest_that_shut_itself_down_is_told() -> None:
    record = write_vm(process=dead_process(), wanted="running")
    record.directory.serial_log.write_text("[   12.3] reboot: Power down\n")
    assert record.end == "its guest shut itself down"
    later = record.changed(serial_start=record.directory.serial_log.stat().st_size)
    assert later.end == "its QEMU is gone"


def test_the_last_words_of_qemu_are_told() -> None:
    record = write_vm(process=dead_process(), wanted="running")
    record.directory.qemu_log.write_text("qemu-system-x86_64: it hurts\n")
    assert record.end == "its QEMU is gone (last words: qemu-system-x86_64: it hurts)"


@pytest.mark.parametrize("content", ["", "{", '{"name": "db"}', "\xff"])
def test_a_damaged_record_names_the_file_and_the_way_out(content: str) -> None:
    path = write_vm("db").directory.record
    path.write_text(content)
    with pytest.raises(VmDamaged) as caught:
        read_record(VmDirectory("db"))
    assert str(path) in caught.value.message
    assert caught.value.hint == "`vmrunner rm --force db` removes the VM with all that is in it"
    assert exit_code_of(caught.value) == 20


def test_a_record_of_another_version_or_vm_is_refused() -> None:
    write_record(write_vm("db").changed(format_version=2))
    with pytest.raises(VmDamaged) as caught:
        read_record(VmDirectory("db"))
    assert "another version" in str(caught.value.details)
    write_vm("other").directory.record.rename(VmDirectory("db").record)
    with pytest.raises(VmDamaged):
        read_record(VmDirectory("db"))


def test_a_missing_key_is_damage() -> None:
    record = write_vm("db")
    record.directory.login_key.unlink()
    with pytest.raises(VmDamaged, match="login-key"):
        _ = record.login_key


@pytest.mark.parametrize("name", ["db", "0", "a-b_c.d", "x" * 63])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "DB", ".db", "-db", "a/b", "..", "a b", "x" * 64, "a\n", "ä"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a VM") as caught:
        check_name(name)
    assert exit_code_of(caught.value) == 2
    assert "63" in str(caught.value.hint)


def test_sockets_are_where_they_can_be_now(tmp_path: Path) -> None:
    plan = with_sockets(sample_record().plan, VmDirectory("db"))
    assert plan.long_lived is not None
    assert plan.long_lived.monitor_socket.parent.stat().st_mode & 0o777 == 0o700
    assert plan.long_lived.monitor_socket.is_relative_to(tmp_path / "run")


def test_a_path_too_long_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(HostError, match="path of a socket would be too long") as caught:
        with_sockets(sample_record().plan, VmDirectory("db"))
    assert "XDG_RUNTIME_DIR" in str(caught.value.hint)


def test_vms_of_one_name_in_two_state_directories_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = VmDirectory("db")
    places = {first.path, first.inbox, first.sockets}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    second = VmDirectory("db")
    assert places.isdisjoint({second.path, second.inbox, second.sockets})

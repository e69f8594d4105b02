"""The life of a long-lived VM as far as it goes without a guest: what is refused, and what is already so."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sshd import FakeSshd, answer
from sample_vms import dead_process, process, use_home, write_vm

from vmrunner import cli
from vmrunner.config.load import Loaded, load_config
from vmrunner.errors import (
    ConfigError,
    GuestLost,
    ImageDamaged,
    UsageError,
    VmBusy,
    VmDamaged,
    VmNotRunning,
    exit_code_of,
)
from vmrunner.events import Event, Note, silent
from vmrunner.guest.key import make_login_key
from vmrunner.host.deadline import Deadline
from vmrunner.machine import registry
from vmrunner.machine.vm import attached, console_socket
from vmrunner.machine.vm_record import VmState
from vmrunner.run.vm_lifecycle import bring_up, remove_vms, stop_vm
from vmrunner.run.vm_list import list_vms
from vmrunner.run.vm_start import start_from_disk


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vm-") as directory:
        use_home(Path(directory), monkeypatch)
        yield Path(directory)


def loaded(home: Path, **flags: object) -> Loaded:
    return load_config(directory=home, file=None, environ={}, flags=flags)


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_up_of_one_that_runs_says_so(home: Path) -> None:
    events: list[Event] = []
    with process() as qemu:
        record = write_vm(process=qemu, wanted="running")
        assert bring_up("db", loaded(home), emit=events.append, deadline=Deadline.after(5)) == record
    assert texts(events) == ["the VM `db` is running already"]


def test_up_with_other_settings_is_refused_and_nothing_is_changed(home: Path) -> None:
    with process() as qemu:
        record = write_vm(process=qemu, wanted="running")
        with pytest.raises(ConfigError, match="other settings"):
            bring_up("db", loaded(home, memory="3G"), emit=silent, deadline=Deadline.after(5))
        assert qemu.alive()
        assert registry.find("db") == record


def test_up_of_what_cannot_be_a_name(home: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        bring_up("../x", loaded(home), emit=silent, deadline=Deadline.after(5))


def test_an_image_that_is_gone_is_named() -> None:
    record = write_vm()
    with pytest.raises(ImageDamaged, match="the image that the VM `db` lies on is gone") as caught:
        start_from_disk(record, boot_timeout=5, emit=silent, deadline=Deadline.after(5))
    assert "/img/vmlinuz" in caught.value.message
    assert exit_code_of(caught.value) == 21


def test_stop_of_one_that_does_not_run_says_so_and_is_no_error() -> None:
    events: list[Event] = []
    write_vm("stopped")
    write_vm("died", wanted="running", process=dead_process())
    for name in ("stopped", "died"):
        assert stop_vm(name, timeout=1, force=False, emit=events.append).state is VmState.STOPPED
    assert texts(events) == [
        "the VM `stopped` is stopped already",
        "the VM `died` had died (its QEMU is gone); its disk is kept",
    ]
    assert registry.find("died").state is VmState.STOPPED


def test_stop_ends_a_guest_that_does_not_answer_and_says_so() -> None:
    events: list[Event] = []
    with process() as qemu:
        record = write_vm(process=qemu, wanted="running")
        stopped = stop_vm("db", timeout=0.2, force=False, emit=events.append)
        assert not qemu.alive()
    assert stopped == record.changed(process=None, wanted="stopped")
    assert record.directory.disk.exists()
    (text,) = texts(events)
    assert text.startswith("the VM `db` did not shut down in 0.2 s and is ended")


def test_what_a_test_run_has_is_left_alone_unless_it_is_forced() -> None:
    deadline = Deadline.after(5)
    with process() as qemu, registry.holding("db", wait=False, run_id="r", emit=silent, deadline=deadline):
        write_vm(process=qemu, wanted="running")
        began = time.monotonic()
        with pytest.raises(VmBusy, match="cannot be stopped: the test run r") as caught:
            stop_vm("db", timeout=5, force=False, emit=silent)
        with pytest.raises(VmBusy, match="cannot be removed"):
            remove_vms(["db"], force=False, emit=silent)
        assert time.monotonic() - began < 2
        assert "--force" in str(caught.value.hint)
        assert qemu.alive()
        remove_vms(["db"], force=True, emit=silent)
        assert not qemu.alive()


def test_a_running_vm_is_removed_by_force_only_and_none_is_where_one_cannot_be() -> None:
    with process() as qemu:
        write_vm("runs", process=qemu, wanted="running")
        write_vm("stopped")
        with pytest.raises(UsageError, match="the VM `runs` is running") as caught:
            remove_vms(["stopped", "runs"], force=False, emit=silent)
        assert exit_code_of(caught.value) == 2
        assert caught.value.hint == "`vmrunner stop runs` first, or add `--force`"
        assert registry.names() == ["runs", "stopped"]
        remove_vms(["stopped", "runs"], force=True, emit=silent)
    assert registry.names() == []


def test_a_damaged_vm_is_removed_by_force() -> None:
    write_vm().directory.record.write_text("{")
    with pytest.raises(VmDamaged):
        remove_vms(["db"], force=False, emit=silent)
    remove_vms(["db"], force=True, emit=silent)
    assert registry.names() == []


def test_removing_what_is_not_there() -> None:
    events: list[Event] = []
    with pytest.raises(UsageError, match="there is no VM `db`"):
        remove_vms(["db"], force=False, emit=silent)
    remove_vms(["db"], force=True, emit=events.append)
    assert texts(events) == ["there is no VM `db`"]


def test_a_guest_is_reached_by_what_the_record_says() -> None:
    with process() as qemu:
        sshd = FakeSshd(make_login_key(), answer(0, b"hello"))
        record = write_vm(
            process=qemu, wanted="running", ssh_port=sshd.endpoint.port, public_key=sshd.login_key.public
        )
        record.directory.login_key.write_text(sshd.login_key.private)
        deadline = Deadline.after(20)
        with attached("db", deadline=deadline) as vm:
            assert vm.record == record
            assert vm.guest.execute(["true"], deadline=deadline).stdout == "hello"
            qemu.end(grace=0)
            with pytest.raises(VmNotRunning, match="the VM `db` died") as caught:
                vm.guest.check_alive()
        assert caught.value.hint == "`vmrunner up db` boots it again from its disk"
        sshd.close()


def test_a_guest_that_does_not_answer_is_lost_with_its_console() -> None:
    with process() as qemu, socket.create_server(("127.0.0.1", 0)) as silent_server:
        port = silent_server.getsockname()[1]
        record = write_vm(process=qemu, wanted="running", ssh_port=port)
        record.directory.login_key.write_text(make_login_key().private)
        record.directory.serial_log.write_text("Kernel panic - not syncing\n")
        with (
            pytest.raises(GuestLost, match="the guest of the VM `db` does not answer") as caught,
            attached("db", deadline=Deadline.after(0.2)),
        ):
            pass
    assert "Kernel panic" in str(caught.value.details)
    assert "vmrunner reset db" in str(caught.value.hint)
    assert exit_code_of(caught.value) == 23


def test_the_console_of_one_that_does_not_run() -> None:
    write_vm()
    with pytest.raises(VmNotRunning):
        console_socket("db")
    with process() as qemu:
        write_vm("runs", process=qemu, wanted="running")
        assert console_socket("runs").name == "console"


def test_the_list_has_every_vm_with_its_state_and_holder() -> None:
    with process() as qemu:
        write_vm("runs", process=qemu, wanted="running")
        write_vm("died", wanted="running", process=dead_process())
        write_vm("bad").directory.record.write_text("{")
        with registry.holding("runs", wait=False, run_id="r", emit=silent, deadline=Deadline.after(5)):
            found = {listing.name: listing for listing in list_vms()}
    assert {name: listing.state for name, listing in found.items()} == {
        "bad": "damaged",
        "died": "died",
        "runs": "running",
    }
    assert found["runs"].holder is not None
    assert (found["runs"].memory_used or 0) > 1 << 20
    assert (found["died"].memory_used, found["died"].end) == (None, "its QEMU is gone")
    assert "vm.json" in str(found["bad"].end)


def test_ps_prints_a_table_and_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ps"]) == 0
    assert capsys.readouterr().out.split() == [
        "NAME", "STATE", "AGE", "IMAGE", "ACCEL", "CPUS", "MEMORY", "SSH", "FORWARDS", "START", "HELD", "BY",
    ]  # fmt: skip
    assert (cli.run(["ps", "--json"]), json.loads(capsys.readouterr().out)) == (0, [])
    with process() as qemu:
        write_vm(
            "runs",
            process=qemu,
            wanted="running",
            ssh_port=40123,
            forwards=("8080:80",),
            created=time.time() - 7200,
        )
        write_vm("bad").directory.record.write_text("{")
        assert cli.run(["ps"]) == 0
        shown = capsys.readouterr()
        head, bad, runs = shown.out.splitlines()
        assert head.index("STATE") == bad.index("damaged") == runs.index("running")
        assert "2h" in runs.split()
        assert "127.0.0.1:40123" in runs
        assert "127.0.0.1:8080->80/tcp" in runs
        assert "vm.json" in shown.err
        assert cli.run(["ps", "--json"]) == 0
        damaged, document = json.loads(capsys.readouterr().out)
    assert damaged["state"] == "damaged"
    assert document["ports"] == {"ssh": 40123, "forwards": ["8080:80"]}
    assert (document["pid"], document["cpus"], document["memory"]) == (qemu.pid, 2, 1 << 30)
    assert document["held_by"] is None


def test_logs_are_labelled_where_there_is_more_than_one(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    directory = write_vm().directory
    directory.serial_log.write_bytes(b"one\r\ntwo \x1b[1m\xff")
    directory.qemu_log.write_bytes(b"three\n")
    assert cli.run(["logs", "db"]) == 0
    assert capsysbinary.readouterr().out == b"serial | one\nqemu   | three\nserial | two \x1b[1m\xff\n"
    assert cli.run(["logs", "db", "serial"]) == 0
    assert capsysbinary.readouterr().out == b"one\r\ntwo \x1b[1m\xff"
    assert cli.run(["logs", "nope"]) == 2

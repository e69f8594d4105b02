"""How a machine is launched: what is tried first, what is thrown away, and what is told; QEMU is a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_qmp import write_fake_qemu
from other_process import other_process
from sample_launches import sample_request
from sample_templates import write_template

from vmrunner.config.units import Duration
from vmrunner.errors import (
    BootCrashed,
    BootError,
    BootTimeout,
    QemuExited,
    RunTimeout,
    VmrunnerError,
    exit_code_of,
)
from vmrunner.events import Event, Note, PhaseFinished, PhaseStarted
from vmrunner.host.deadline import Deadline
from vmrunner.machine import templates
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.launch import Launch, LaunchRequest, launching
from vmrunner.run.template_making import find_or_make

# Restoring goes well as far as QEMU tells; nobody answers behind the port that it names.
RESTORES = "serve(migrate_set_capabilities={}, getfd={}, migrate_incoming={}, query_migrate={'status': 'completed'}, cont={})"
REFUSES_STATE = "serve(migrate_set_capabilities={}, getfd={}, migrate_incoming=Refusal('bad magic'))"
DIES_OVER_STATE = (
    "print('qemu: Not a migration stream', flush=True);"
    " serve(migrate_set_capabilities={}, getfd={}, migrate_incoming=HangUp()); sys.exit(1)"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def told() -> list[Event]:
    """What is emitted."""
    return []


def request_for(directory: Path, qemu: str, **settings: Any) -> LaunchRequest:
    """A launch with a program in QEMU's place that behaves like `qemu`."""
    request = sample_request(directory, **{"boot_timeout": Duration(0.2), **settings})
    write_fake_qemu(directory, qemu)
    return request


def breaking_request(directory: Path, version: str, **settings: Any) -> LaunchRequest:
    """A launch whose guest resets itself while it boots, under a QEMU that says it is of that version."""
    reset = {"guest": True, "reason": "guest-reset"}
    breaks = f"serve(human_monitor_command=EventThen('SHUTDOWN', {reset!r}, USERNET))"
    request = request_for(directory, breaks, boot_timeout=Duration(9), **settings)
    return replace(request, qemu=replace(request.qemu, version=version))


def qemus(directory: Path) -> list[int]:
    """The process ids of what runs in QEMU's place."""
    program = str(directory / "qemu-system-x86_64")
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if program in (process.info["cmdline"] or ())
    ]


def notes(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, Note)]


def started_phases(told: list[Event]) -> list[str]:
    return [event.name for event in told if isinstance(event, PhaseStarted)]


@contextmanager
def launched(request: LaunchRequest, told: list[Event], seconds: float = 20.0) -> Iterator[Launch]:
    with launching(request, emit=told.append, deadline=Deadline.after(seconds)) as launch:
        yield launch


def error_of(request: LaunchRequest, told: list[Event], seconds: float = 20.0) -> VmrunnerError:
    """What such a launch ends with: none here has a guest that answers."""
    with pytest.raises(VmrunnerError) as caught, launched(request, told, seconds) as launch:
        launch.ready()
    return caught.value


def test_the_template_is_that_of_the_plan_the_image_and_the_nextest_that_is_carried_in(
    tmp_path: Path,
) -> None:
    (tmp_path / "cargo-nextest").write_text("program")
    tool = NextestTool(tmp_path / "cargo-nextest", "0.9.148", "x86_64", None, None)
    request = sample_request(tmp_path)
    carrying = replace(request, tool=tool)
    other_image = replace(
        request,
        image=replace(request.image, manifest=request.image.manifest.model_copy(update={"digest": "9" * 64})),
    )
    keys = {request.template.key, carrying.template.key, other_image.template.key}
    assert len(keys) == 3
    other_run = replace(request.run, id="2", path=tmp_path / "other", scratch=tmp_path / "other")
    assert replace(request, run=other_run).template.key == request.template.key
    assert carrying.template.tool == tool
    assert carrying.template.plan == request.plan


@pytest.mark.parametrize("start", ["auto", "restored", "booted"])
def test_nothing_begins_where_there_is_no_template(tmp_path: Path, told: list[Event], start: str) -> None:
    """Making one takes as long as to boot, so it waits until the archive is built."""
    with launched(sample_request(tmp_path, start=start), told) as launch:
        assert told == []
        assert (launch.start, launch.running_seconds, launch.ready_seconds) == ("booted", None, None)


def test_a_template_is_restored_before_the_machine_is_asked_for(tmp_path: Path, told: list[Event]) -> None:
    request = request_for(tmp_path, RESTORES)
    write_template(request.template.key)
    with launched(request, told) as launch:
        assert launch.start == "restored"
        assert launch.running_seconds is not None
        assert launch.running_seconds > 0
        assert launch.ready_seconds is None
        assert len(qemus(tmp_path)) == 1
        assert started_phases(told) == ["start"]
        assert notes(told) == []
        # A template in use is not pruned.
        assert templates.prune(keep_bytes=0) == []
    assert [stored.key for stored in templates.prune(keep_bytes=0)] == [request.template.key]


def test_a_restored_machine_has_the_templates_disk_and_memory_and_is_opened_by_its_key(
    tmp_path: Path, told: list[Event]
) -> None:
    write = f"open({str(tmp_path / 'arguments')!r}, 'w').write(chr(10).join(sys.argv)); "
    request = request_for(tmp_path, write + RESTORES)
    directory = write_template(request.template.key)
    with launched(request, told):
        arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("-incoming") + 1] == "defer"
    assert any(f"mem-path={directory / 'ram'}" in word and "share=off" in word for word in arguments)
    assert request.run.overlay.read_text() == "overlay.qcow2"
    assert request.run.overlay.stat().st_mode & 0o777 == 0o600


def test_a_template_that_goes_before_it_is_restored_is_no_bug(
    tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may prune it or throw it away at any moment."""
    request = sample_request(tmp_path)
    write_template(request.template.key)
    found = templates.find_template(request.template.key)
    templates.discard(request.template.key)
    monkeypatch.setattr("vmrunner.run.launch.find", lambda *_, **__: found)
    with launched(request, told):
        assert notes(told) == [
            "the memory template was no good and was thrown away: "
            "the memory template is gone: it was removed meanwhile"
        ]


def test_booted_does_not_look_for_a_template(tmp_path: Path, told: list[Event]) -> None:
    request = request_for(tmp_path, "serve()", start="booted")
    directory = write_template(request.template.key)
    (directory / "ram").unlink()
    error = error_of(request, told)
    assert isinstance(error, BootTimeout)
    assert started_phases(told) == ["start", "connect"]
    assert notes(told) == []
    assert directory.exists()


def test_restored_is_an_error_where_no_template_can_be_made(tmp_path: Path, told: list[Event]) -> None:
    request = sample_request(tmp_path, start="restored")
    error = error_of(request, told)
    assert isinstance(error, BootError)
    assert exit_code_of(error) == 22
    assert error.message == "the machine cannot be restored: there is no memory template for it"
    assert "no memory template could be made" in notes(told)[0]


def test_auto_boots_where_no_template_can_be_made(tmp_path: Path, told: list[Event], cache: Path) -> None:
    request = request_for(tmp_path, "serve()")
    error = error_of(request, told)
    assert isinstance(error, BootTimeout)
    assert started_phases(told) == ["template", "start", "connect"]
    (note,) = notes(told)
    assert note.startswith("no memory template could be made, so this machine boots: ")
    assert sorted(path.name for path in (cache / "vmrunner" / "templates").iterdir()) == [".locks"]


@pytest.mark.parametrize(("version", "made"), [("7.2.22", 2), ("8.1.0", 1)])
def test_a_template_whose_guest_breaks_is_tried_again_with_a_qemu_that_is_known_for_it(
    tmp_path: Path, told: list[Event], version: str, made: int
) -> None:
    request = breaking_request(tmp_path, version)
    with launched(request, told):
        assert find_or_make(request.template, emit=told.append, deadline=Deadline.after(20)) is None
    assert started_phases(told) == ["template"] * made
    assert notes(told)[-1].startswith("no memory template could be made")
    assert ["started once more" in note for note in notes(told)] == [True] * (made - 1) + [False]


@pytest.mark.parametrize(("version", "boots"), [("7.2.22", 2), ("8.1.0", 1)])
def test_a_boot_that_breaks_is_tried_again_with_a_qemu_that_is_known_for_it(
    tmp_path: Path, told: list[Event], version: str, boots: int
) -> None:
    error = error_of(breaking_request(tmp_path, version, start="booted"), told)
    assert isinstance(error, BootCrashed), error
    assert ("this QEMU has a defect" in (error.hint or "")) is (boots == 2)
    assert started_phases(told) == ["start", "connect"] * boots
    assert len(notes(told)) == boots - 1
    assert qemus(tmp_path) == []


def test_a_damaged_template_is_thrown_away_with_one_line(tmp_path: Path, told: list[Event]) -> None:
    request = sample_request(tmp_path)
    directory = write_template(request.template.key, size=10)
    (directory / "ram").write_bytes(b"")
    with launched(request, told) as launch:
        assert launch.start == "booted"
    assert notes(told) == [
        f"the memory template {request.template.key[:12]} is no good and was thrown away: "
        "its file `ram` was changed (0 bytes)"
    ]
    assert not directory.exists()


@pytest.mark.parametrize(
    ("qemu", "said"), [(REFUSES_STATE, "bad magic"), (DIES_OVER_STATE, "while its saved state was loaded")]
)
def test_state_that_qemu_does_not_take_is_thrown_away_with_one_line(
    tmp_path: Path, told: list[Event], qemu: str, said: str
) -> None:
    request = request_for(tmp_path, qemu)
    directory = write_template(request.template.key)
    with launched(request, told):
        (note,) = notes(told)
        assert note.startswith("the memory template was no good and was thrown away: ")
        assert said in note
        assert not directory.exists()
    failed = [event.failed for event in told if isinstance(event, PhaseFinished)]
    assert failed == [True]


def test_with_restored_a_state_that_qemu_does_not_take_ends_the_run(
    tmp_path: Path, told: list[Event]
) -> None:
    request = request_for(tmp_path, DIES_OVER_STATE, start="restored")
    directory = write_template(request.template.key)
    error = error_of(request, told)
    assert isinstance(error, QemuExited)
    assert "Not a migration stream" in str(error.details)
    assert not directory.exists()


def test_a_restored_guest_that_does_not_answer_is_replaced_by_a_boot(
    tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.run.launch.RESTORED_ANSWERS_SECONDS", 0.1)
    request = request_for(tmp_path, RESTORES)
    directory = write_template(request.template.key)
    error = error_of(request, told)
    assert isinstance(error, BootTimeout)
    assert started_phases(told) == ["start", "connect", "start", "connect"]
    (note,) = notes(told)
    assert note.startswith("the memory template was no good and was thrown away: ")
    assert not directory.exists()


def test_a_run_whose_time_is_up_blames_the_time_and_not_the_template(
    tmp_path: Path, told: list[Event]
) -> None:
    request = request_for(tmp_path, RESTORES)
    directory = write_template(request.template.key)
    error = error_of(request, told, seconds=1.0)
    assert isinstance(error, RunTimeout)
    assert exit_code_of(error) == 25
    assert directory.exists()
    assert notes(told) == []


def test_who_finds_another_making_the_template_says_that_it_waits(
    tmp_path: Path, told: list[Event], cache: Path
) -> None:
    request = sample_request(tmp_path)
    code = f"""
        import os, sys
        os.environ["XDG_CACHE_HOME"] = {str(cache)!r}
        from vmrunner.host.deadline import Deadline
        from vmrunner.machine import templates
        with templates.making_lock({request.template.key!r}, deadline=Deadline.after(5), on_wait=lambda: None):
            print("ready", flush=True)
            sys.stdin.read()
    """
    with other_process(code), pytest.raises(RunTimeout):
        find_or_make(request.template, emit=told.append, deadline=Deadline.after(0.2))
    assert notes(told) == ["another vmrunner makes the memory template for this machine; waiting for it"]


def test_who_waited_takes_what_the_other_made(tmp_path: Path, told: list[Event]) -> None:
    request = sample_request(tmp_path)
    directory = write_template(request.template.key)
    found = find_or_make(request.template, emit=told.append, deadline=Deadline.after(5))
    assert found is not None
    assert found.directory == directory
    assert told == []


def test_no_template_is_begun_where_the_disk_has_no_room_for_it(
    tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.run.template_making._DISK_RESERVE", 1 << 60)
    request = sample_request(tmp_path)
    assert find_or_make(request.template, emit=told.append, deadline=Deadline.after(5)) is None
    (note,) = notes(told)
    assert "are free in" in note
    assert started_phases(told) == []


def test_a_launch_that_is_closed_has_no_process_left(tmp_path: Path, told: list[Event]) -> None:
    request = request_for(tmp_path, RESTORES)
    write_template(request.template.key)
    with launched(request, told) as launch:
        assert len(qemus(tmp_path)) == 1
        launch.finish(failed=False)
        assert qemus(tmp_path) == []
    assert started_phases(told) == ["start", "stop"]

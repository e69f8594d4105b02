"""The watch over a long-lived VM of whose guest something is awaited; QEMU is asked only where it does nothing."""

from __future__ import annotations

import os
from unittest.mock import Mock

import pytest
from sample_vms import dead_process, sample_record

from vmrunner.errors import GuestHalted, VmBusy, VmNotRunning
from vmrunner.host.process_identity import identity_of
from vmrunner.machine import vm
from vmrunner.machine.vm_record import VmRecord

HALTED = GuestHalted("there is no room")


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> VmRecord:
    """A VM whose process is this one, looked at all the time."""
    monkeypatch.setattr(vm, "_LOOK_SECONDS", 0.0)
    return sample_record(process=identity_of(os.getpid()), wanted="running")


@pytest.fixture
def wake(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What asks QEMU."""
    asked = Mock(side_effect=HALTED)
    monkeypatch.setattr(vm, "wake", asked)
    return asked


def used(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """The CPU time of the process, look by look."""
    monkeypatch.setattr(vm, "cpu_seconds", Mock(side_effect=seconds))


def test_a_machine_that_does_nothing_is_asked_about(
    record: VmRecord, wake: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(monkeypatch, 5.0, 5.01)
    watch = vm._Watch(record)
    watch.look()
    assert not wake.called
    with pytest.raises(GuestHalted):
        watch.look()


def test_a_machine_that_works_is_not_asked_about(
    record: VmRecord, wake: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(monkeypatch, 5.0, 5.1, 5.2)
    watch = vm._Watch(record)
    for _ in range(3):
        watch.look()
    assert not wake.called


def test_a_monitor_that_another_command_has_is_no_reason(
    record: VmRecord, wake: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake.side_effect = VmBusy("another command")
    used(monkeypatch, 5.0, 5.0, 5.0)
    watch = vm._Watch(record)
    for _ in range(3):
        watch.look()
    assert wake.call_count == 2


def test_it_is_not_looked_at_all_the_time(
    record: VmRecord, wake: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm, "_LOOK_SECONDS", 60.0)
    used(monkeypatch, 5.0)
    watch = vm._Watch(record)
    for _ in range(100):
        watch.look()
    assert not wake.called


def test_a_process_that_is_gone_is_told(record: VmRecord, wake: Mock) -> None:
    with pytest.raises(VmNotRunning, match="died"):
        vm._Watch(record.changed(process=dead_process())).look()
    assert not wake.called

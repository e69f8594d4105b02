"""Choosing an accelerator: the order, the proof, the reasons, and what is remembered."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Literal

import pytest
from fake_qemu import ABORTS, REFUSES, STUCK, WORKS, WORKS_SLOWLY, fake_qemu, questions

from vmrunner.errors import HostError, RunTimeout, exit_code_of
from vmrunner.events import Event, Note, PhaseFinished, silent
from vmrunner.host import accelerator
from vmrunner.host.accelerator import Accelerator, choose_accelerator, kvm_obstacle
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import Qemu

ALL_WORK = {"kvm host": WORKS, "tcg max": WORKS}
NO_KVM = {"kvm host": ABORTS, "kvm host,-arch-capabilities": STUCK, "kvm qemu64": STUCK, "tcg max": WORKS}


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens, on a computer with hardware KVM, and an empty cache."""
    device = tmp_path / "kvm"
    device.touch()
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags : fpu vmx lm\n")
    monkeypatch.setattr(accelerator, "KVM_DEVICE", device)
    monkeypatch.setattr(accelerator, "CPU_INFO", flags)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return device


def choose(
    qemu: Qemu, requested: Literal["auto", "kvm", "tcg"] = "auto", cpu_model: str = "auto"
) -> Accelerator:
    return choose_accelerator(requested, cpu_model, qemu=qemu, emit=silent, deadline=Deadline.after(30))


def test_kvm_that_works_is_taken_with_the_hosts_processor(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    chosen = choose(qemu)
    assert (chosen.kind, chosen.cpu_model) == ("kvm", "host")
    assert chosen.reason.startswith("KVM is proven to work")
    assert questions(qemu) == ["kvm host"]


def test_safer_model_is_taken_where_host_aborts(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, {**ALL_WORK, "kvm host": ABORTS, "kvm host,-arch-capabilities": WORKS})
    chosen = choose(qemu)
    assert (chosen.kind, chosen.cpu_model) == ("kvm", "host,-arch-capabilities")
    assert "CPU model host did not: QEMU died of SIGABRT" in chosen.reason
    assert [one.works for one in chosen.attempts] == [False, True]


def test_tcg_is_taken_where_kvm_opens_but_runs_nothing(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, NO_KVM)
    chosen = choose(qemu)
    assert (chosen.kind, chosen.cpu_model) == ("tcg", "max")
    assert "opens but no guest runs on it" in chosen.reason
    assert "KVM internal error" in chosen.reason
    assert "64-bit" in chosen.proof
    assert questions(qemu) == list(NO_KVM)


def test_reason_says_when_the_processor_has_no_virtualization(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu lm hypervisor\n")
    assert "neither vmx nor svm" in choose(fake_qemu(tmp_path, NO_KVM)).reason


def test_missing_kvm_is_not_probed(tmp_path: Path, kvm: Path) -> None:
    kvm.unlink()
    qemu = fake_qemu(tmp_path, ALL_WORK)
    chosen = choose(qemu)
    assert chosen.kind == "tcg"
    assert f"{kvm} does not exist" in chosen.reason
    assert questions(qemu) == ["tcg max"]


def test_forbidden_kvm_says_which_group(kvm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # root, as which these tests may run, can open every file
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert kvm_obstacle() == f"{kvm} may not be opened (`sudo usermod -aG kvm $USER`, then log in again)"


def test_kvm_of_another_kind_of_file_is_told(tmp_path: Path) -> None:
    assert kvm_obstacle(tmp_path) == f"{tmp_path} cannot be opened: Is a directory"


def test_asked_for_tcg_never_looks_at_kvm(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    chosen = choose(qemu, "tcg")
    assert (chosen.kind, chosen.reason) == ("tcg", "TCG was asked for")
    assert questions(qemu) == ["tcg max"]


def test_asked_for_kvm_that_does_not_work_is_an_error_with_every_attempt(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="KVM was asked for and does not work") as caught:
        choose(fake_qemu(tmp_path, NO_KVM), "kvm")
    assert exit_code_of(caught.value) == 20
    assert "--accel auto" in (caught.value.hint or "")
    details = (caught.value.details or "").splitlines()
    assert len(details) == 3
    assert details[0].startswith("kvm host (")
    assert "SIGABRT" in details[0]


def test_asked_for_kvm_without_a_device_is_an_error(tmp_path: Path, kvm: Path) -> None:
    kvm.unlink()
    with pytest.raises(HostError, match="does not exist"):
        choose(fake_qemu(tmp_path, ALL_WORK), "kvm")


def test_tcg_has_to_prove_itself_too(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, {**NO_KVM, "tcg max": REFUSES})
    with pytest.raises(HostError, match="no accelerator runs a guest") as caught:
        choose(qemu)
    assert exit_code_of(caught.value) == 20
    assert "tcg max" in (caught.value.details or "")
    assert "-cpu help" in (caught.value.hint or "")


def test_given_model_is_probed_as_it_is(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, {"kvm EPYC,-avx2": WORKS})
    assert choose(qemu, cpu_model="EPYC,-avx2").cpu_model == "EPYC,-avx2"
    assert questions(qemu) == ["kvm EPYC,-avx2"]


def test_given_model_that_exists_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="CPU model nonsense"):
        choose(fake_qemu(tmp_path, ALL_WORK), cpu_model="nonsense")


def test_kvm_slower_than_emulation_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "QUICK_SECONDS", 0.2)
    qemu = fake_qemu(tmp_path, {"kvm host": WORKS_SLOWLY, "tcg max": WORKS})
    chosen = choose(qemu)
    assert chosen.kind == "tcg"
    assert "slower than emulation" in chosen.reason
    assert questions(qemu) == ["kvm host", "kvm host", "tcg max"]


def test_kvm_as_slow_as_emulation_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "QUICK_SECONDS", 0.2)
    qemu = fake_qemu(tmp_path, {"kvm host": WORKS_SLOWLY, "tcg max": WORKS_SLOWLY})
    assert choose(qemu).kind == "kvm"


def test_kvm_slow_only_once_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "QUICK_SECONDS", 0.2)
    first_only = f"test -e {tmp_path}/warm || {{ touch {tmp_path}/warm; sleep 0.4; }}; {WORKS}"
    qemu = fake_qemu(tmp_path, {"kvm host": first_only, "tcg max": WORKS})
    assert choose(qemu).kind == "kvm"
    assert questions(qemu) == ["kvm host", "kvm host"]


def test_asked_for_kvm_is_taken_however_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "QUICK_SECONDS", 0.2)
    qemu = fake_qemu(tmp_path, {"kvm host": WORKS_SLOWLY, "tcg max": WORKS})
    assert choose(qemu, "kvm").kind == "kvm"
    assert questions(qemu) == ["kvm host"]


def test_choice_is_remembered(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, NO_KVM)
    first = choose(qemu)
    assert choose(qemu) == first
    assert len(questions(qemu)) == len(NO_KVM)


def test_each_question_is_remembered_by_itself(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    assert choose(qemu).kind == "kvm"
    assert choose(qemu, "tcg").kind == "tcg"
    assert choose(qemu).kind == "kvm"
    assert questions(qemu) == ["kvm host", "tcg max"]


def test_fresh_proof_does_not_ask_the_memory(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    choose(qemu)
    choose_accelerator("auto", qemu=qemu, emit=silent, deadline=Deadline.after(30), fresh=True)
    assert questions(qemu) == ["kvm host", "kvm host"]


def test_restart_of_the_computer_makes_it_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(accelerator, "BOOT_ID", boot)
    qemu = fake_qemu(tmp_path, ALL_WORK)
    for identity in ("one", "one", "two"):
        boot.write_text(identity)
        choose(qemu)
    assert len(questions(qemu)) == 2


def test_changed_qemu_makes_it_forget(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    choose(qemu)
    os.utime(qemu.path, (1, 1))
    choose(qemu)
    assert len(questions(qemu)) == 2


def test_vanished_kvm_makes_it_forget(tmp_path: Path, kvm: Path) -> None:
    qemu = fake_qemu(tmp_path, ALL_WORK)
    assert choose(qemu).kind == "kvm"
    kvm.unlink()
    assert choose(qemu).kind == "tcg"


def spoil_kind(text: str) -> str:
    return text.replace('"kind": "kvm"', '"kind": "warp"')


def spoil_text(text: str) -> str:
    return text.replace('"cpu_model": "host"', '"cpu_model": 5')


def cut(text: str) -> str:
    return text[: len(text) // 2]


def another_shape(_text: str) -> str:
    return "[1, 2]"


@pytest.mark.parametrize("spoil", [spoil_kind, spoil_text, cut, another_shape])
def test_damaged_memory_is_as_good_as_none(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    qemu = fake_qemu(tmp_path, ALL_WORK)
    first = choose(qemu)
    memory = tmp_path / "cache" / "vmrunner" / "accelerator.json"
    memory.write_text(spoil(memory.read_text()))
    again = choose(qemu)
    assert (again.kind, again.cpu_model) == (first.kind, first.cpu_model)
    assert len(questions(qemu)) == 2
    json.loads(memory.read_text())


def test_memory_is_private(tmp_path: Path) -> None:
    choose(fake_qemu(tmp_path, ALL_WORK))
    memory = tmp_path / "cache" / "vmrunner" / "accelerator.json"
    assert memory.stat().st_mode & 0o777 == 0o600


def test_unwritable_cache_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    qemu = fake_qemu(tmp_path, ALL_WORK)
    assert choose(qemu).kind == "kvm"
    assert choose(qemu).kind == "kvm"
    assert len(questions(qemu)) == 2


def test_says_what_it_took_each_time_but_probes_once(tmp_path: Path) -> None:
    events: list[Event] = []
    qemu = fake_qemu(tmp_path, NO_KVM)
    for _ in range(2):
        choose_accelerator("auto", qemu=qemu, emit=events.append, deadline=Deadline.after(30))
    notes = [event for event in events if isinstance(event, Note)]
    assert [note.level for note in notes] == ["warning", "warning"]
    assert notes[0].text.startswith("accelerator tcg, CPU model max: ")
    finished = [event for event in events if isinstance(event, PhaseFinished)]
    assert [(one.name, one.text) for one in finished] == [("accelerator", "tcg, CPU model max")]


def test_runs_deadline_ends_the_choice(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, {"kvm host": "sleep 60"})
    with pytest.raises(RunTimeout):
        choose_accelerator("auto", qemu=qemu, emit=silent, deadline=Deadline.after(0.2))

"""The accelerator probe: what counts as proof, and how each way to fail is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_qemu import ABORTS, HANGS, MISCOMPUTES, REFUSES, STUCK, WORKS, fake_qemu, write_program

from vmrunner.errors import RunTimeout
from vmrunner.host import probe
from vmrunner.host.deadline import Deadline
from vmrunner.host.probe import Attempt, probe_rom, run_probe
from vmrunner.host.qemu import Qemu


def attempt(directory: Path, behaviour: str) -> Attempt:
    qemu = fake_qemu(directory, {"kvm host": behaviour})
    return run_probe(qemu, "kvm", "host", deadline=Deadline.after(30))


def test_rom_starts_at_the_reset_vector_with_a_jump_to_its_code() -> None:
    rom = probe_rom()
    assert len(rom) == 65536
    assert rom[0xFFF0:0xFFF3] == b"\xe9\x0d\x00"  # jmp to 0x10000, which is 0 in a 64 KiB segment
    assert (0xFFF3 + int.from_bytes(rom[0xFFF1:0xFFF3], "little")) & 0xFFFF == 0
    assert rom[0] == 0xFA  # cli
    assert rom[382:0xFFF0] == bytes(0xFFF0 - 382)


def test_exit_code_33_is_proof(tmp_path: Path) -> None:
    found = attempt(tmp_path, WORKS)
    assert found.works
    assert (found.kind, found.cpu_model) == ("kvm", "host")
    assert 0 < found.seconds < 2
    assert "64-bit" in found.saw


def test_abort_names_the_signal_and_qemus_own_words(tmp_path: Path) -> None:
    found = attempt(tmp_path, ABORTS)
    assert not found.works
    assert "SIGABRT" in found.saw
    assert "before the first instruction" in found.saw
    assert found.saw.endswith("failed to set MSR 0x10a to 0x69")


def test_kvm_internal_error_ends_the_probe_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    found = attempt(tmp_path, STUCK)
    assert time.monotonic() - began < probe.PROBE_SECONDS
    assert not found.works
    assert "SSE" in found.saw
    assert "KVM internal error. Suberror: 1" in found.saw


def test_hanging_guest_is_killed_at_the_limit_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.3)
    monkeypatch.setenv("VMRUNNER_TEST_MARK", str(tmp_path))
    began = time.monotonic()
    found = attempt(tmp_path, HANGS)
    assert time.monotonic() - began < 10
    assert found.saw == "the guest hung in 32-bit mode for 0.3 s"
    patience = Deadline.after(5)  # a killed process stays visible until the kernel gets round to it
    while processes_with(f"VMRUNNER_TEST_MARK={tmp_path}") and patience.pause(0.05):
        pass
    assert processes_with(f"VMRUNNER_TEST_MARK={tmp_path}") == set()


def processes_with(variable: str) -> set[int]:
    """The processes, other than this one, that carry this environment variable."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if variable.encode() in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_probe_dies_with_a_killed_vmrunner(tmp_path: Path) -> None:
    hangs = f"echo $$ >'{tmp_path}/new'; mv '{tmp_path}/new' '{tmp_path}/pid'; exec sleep 60"
    qemu = fake_qemu(tmp_path, {"kvm host": hangs})
    program = (
        "from pathlib import Path; from vmrunner.host import probe; from vmrunner.host.qemu import Qemu;"
        "from vmrunner.host.deadline import Deadline; probe.PROBE_SECONDS = 60;"
        f"probe.run_probe(Qemu(Path({str(qemu.path)!r}), '8.2.2'), 'kvm', 'host', deadline=Deadline.after(60))"
    )
    runner = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)})
    limit = Deadline.after(20)
    while not (tmp_path / "pid").exists() and limit.pause(0.02):
        pass
    entry = Path("/proc") / (tmp_path / "pid").read_text().strip()
    assert entry.exists()
    runner.kill()
    runner.wait()
    while entry.exists() and limit.pause(0.02):
        pass
    assert not entry.exists()


def test_refused_cpu_model_shows_what_qemu_said(tmp_path: Path) -> None:
    found = attempt(tmp_path, REFUSES)
    assert found.saw == "QEMU refused with exit code 1: unable to find CPU model"


def test_wrong_result_is_no_proof(tmp_path: Path) -> None:
    found = attempt(tmp_path, MISCOMPUTES)
    assert not found.works
    assert "exit code 35" in found.saw


def test_leaves_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    attempt(tmp_path, WORKS)
    attempt(tmp_path, STUCK)
    assert list(temporary.iterdir()) == []


def test_runs_deadline_is_not_taken_for_a_failed_probe(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, {"tcg max": HANGS})
    with pytest.raises(RunTimeout):
        run_probe(qemu, "tcg", "max", deadline=Deadline.after(0.2))


def test_qemu_gets_the_rom_and_the_asked_model(tmp_path: Path) -> None:
    program = write_program(
        tmp_path / "qemu", f'echo "$@" >{tmp_path}/words; wc -c <rom.bin >{tmp_path}/size; exit 33'
    )
    assert run_probe(Qemu(program, "8.2.2"), "tcg", "qemu64,+avx", deadline=Deadline.after(30)).works
    words = (tmp_path / "words").read_text()
    assert "-accel tcg -cpu qemu64,+avx" in words
    assert "-bios rom.bin" in words
    assert int((tmp_path / "size").read_text()) == 65536

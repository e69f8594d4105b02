"""A program that stands in for QEMU: it answers `--version` and behaves as told for each accelerator and model."""

from __future__ import annotations

from pathlib import Path

from vmrunner.host.qemu import Qemu

WORKS = "printf 12345 >stages; exit 33"
WORKS_SLOWLY = "printf 12345 >stages; sleep 0.4; exit 33"
ABORTS = "echo 'qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69' >&2; kill -ABRT $$"
STUCK = "printf 123 >stages; echo 'KVM internal error. Suberror: 1' >&2; sleep 60"
HANGS = "printf 12 >stages; sleep 60"
REFUSES = 'echo "qemu-system-x86_64: unable to find CPU model" >&2; exit 1'
MISCOMPUTES = "printf 123 >stages; exit 35"


def write_program(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake_qemu(directory: Path, answers: dict[str, str], version: str = "8.2.2") -> Qemu:
    """A QEMU whose `answers` map `ACCELERATOR MODEL` to one of the snippets above; others are refused.

    It writes each question into the file `asked` beside itself.
    """
    cases = "\n".join(f"'{question}') {answer};;" for question, answer in answers.items())
    body = f"""
while [ $# -gt 0 ]; do
    case $1 in
        --version) echo 'QEMU emulator version {version} (Debian 1:{version}+ds-1)'; exit 0;;
        -accel) accel=$2; shift;;
        -cpu) cpu=$2; shift;;
    esac
    shift
done
echo "$accel $cpu" >>'{directory}/asked'
case "$accel $cpu" in
{cases}
*) {REFUSES};;
esac"""
    return Qemu(write_program(directory / "qemu-system-x86_64", body), version)


def questions(qemu: Qemu) -> list[str]:
    """What the fake was asked so far, such as `kvm host`."""
    asked = qemu.path.parent / "asked"
    return asked.read_text().splitlines() if asked.exists() else []

"""What the doctor asks about QEMU, with programs that stand in for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import ABORTS, STUCK, WORKS, fake_qemu, write_program

from vmrunner.errors import HostError
from vmrunner.host import accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu_checks import (
    check_accelerator,
    check_port_forwarding,
    check_qemu,
    check_qemu_img,
    check_setpriv,
    check_shares,
)

SOON = Deadline.after(3600)
FORWARD = """Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]   3       127.0.0.1 39013       10.0.2.15    22     0     0"""


@pytest.fixture(autouse=True)
def _first_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stopped_machine(directory: Path, answer: str) -> None:
    """A QEMU that keeps its words and its monitor's commands, and then does `answer`."""
    write_program(
        directory / "qemu-system-x86_64",
        f"""if [ "$1" = --version ]; then echo 'QEMU emulator version 8.2.2'; exit; fi
echo "$@" >'{directory}/words'
cat >'{directory}/commands'
{answer}""",
    )


def test_qemu_and_its_version(tmp_path: Path) -> None:
    fake_qemu(tmp_path, {}, version="9.2.1")
    check = check_qemu()
    assert (check.status, check.found) == ("ok", f"9.2.1 ({tmp_path}/qemu-system-x86_64)")


def test_qemu_img_and_its_version(tmp_path: Path) -> None:
    write_program(tmp_path / "qemu-img", "echo 'qemu-img version 9.2.1'")
    assert check_qemu_img().found == f"9.2.1 ({tmp_path}/qemu-img)"


def test_missing_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError):
        check_qemu()
    with pytest.raises(HostError):
        check_qemu_img()
    assert check_setpriv().advice == "sudo apt install util-linux"


def test_accelerator_shows_every_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", tmp_path / "kvm")
    answers = {
        "kvm host": ABORTS,
        "kvm host,-arch-capabilities": STUCK,
        "kvm qemu64": STUCK,
        "tcg max": WORKS,
    }
    fake_qemu(tmp_path, answers)
    check = check_accelerator(SOON)
    lines = check.found.splitlines()
    assert check.status == "warning"
    assert lines[0].startswith("tcg, CPU model max: ")
    assert [line.split(":")[0] for line in lines[1:]] == [f"tried {question}" for question in answers]
    assert "fails" in lines[1]
    assert "works" in lines[4]


def test_working_kvm_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", tmp_path / "kvm")
    fake_qemu(tmp_path, {"kvm host": WORKS})
    check = check_accelerator(SOON)
    assert (check.status, check.advice) == ("ok", None)


def test_forwarded_port_is_read_back(tmp_path: Path) -> None:
    stopped_machine(tmp_path, f"echo '{FORWARD}'")
    check = check_port_forwarding(SOON)
    assert check.status == "ok"
    assert "127.0.0.1:39013" in check.found
    assert (tmp_path / "commands").read_text() == "info usernet\nquit\n"
    assert "hostfwd=tcp:127.0.0.1:0-:22" in (tmp_path / "words").read_text()


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (
            "echo \"Parameter 'type' does not accept value 'user'\" >&2; exit 1",
            "does not accept value 'user'",
        ),
        ("exit 0", "exit code 0"),
    ],
)
def test_qemu_without_user_network_is_a_problem(tmp_path: Path, answer: str, seen: str) -> None:
    stopped_machine(tmp_path, answer)
    check = check_port_forwarding(SOON)
    assert check.status == "problem"
    assert seen in check.found
    assert "slirp" in (check.advice or "")


def test_shares_are_tried_in_the_sandbox(tmp_path: Path) -> None:
    stopped_machine(tmp_path, "exit 0")
    assert check_shares(SOON).status == "ok"
    words = (tmp_path / "words").read_text()
    assert "-sandbox on" in words
    assert "virtio-9p-pci" in words
    assert "readonly=on" in words


def test_qemu_without_9p_is_a_problem(tmp_path: Path) -> None:
    stopped_machine(tmp_path, "echo \"'virtio-9p-pci' is not a valid device model name\" >&2; exit 1")
    check = check_shares(SOON)
    assert check.status == "problem"
    assert "not a valid device model name" in check.found
    assert "VirtFS" in (check.advice or "")

"""The doctor's frame, and the questions about this computer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import write_program

from vmrunner.errors import HostError
from vmrunner.host.checks import (
    check_directory,
    check_nix,
    check_python,
    check_space,
    host_questions,
)
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question, run_checks
from vmrunner.host.facts import HostFacts

GIB = 2**30
SOON = Deadline.after(3600)


def facts(*, memory: int = 8 * GIB, cache: int = 50 * GIB, state: int = 50 * GIB) -> HostFacts:
    return HostFacts(4, 16 * GIB, memory, cache, state, "Debian GNU/Linux 12 (bookworm)")


def test_every_question_is_answered_in_order() -> None:
    asked = (
        Question("a", lambda _: [Check("a", "ok", "1")]),
        Question("b", lambda _: [Check("b1", "ok", "2"), Check("b2", "warning", "3", "do")]),
    )
    assert [check.name for check in run_checks(asked, deadline=SOON)] == ["a", "b1", "b2"]


def test_vmrunners_own_error_becomes_a_problem_with_its_hint() -> None:
    def ask(_: Deadline) -> list[Check]:
        raise HostError("`qemu` is not on PATH", hint="sudo apt install qemu", details="looked in /bin")

    expected = Check("qemu", "problem", "`qemu` is not on PATH\nlooked in /bin", "sudo apt install qemu")
    assert run_checks([Question("qemu", ask)], deadline=SOON) == (expected,)


def test_broken_check_is_reported_and_the_others_go_on() -> None:
    def broken(_: Deadline) -> list[Check]:
        raise ZeroDivisionError("by zero")

    first, second = run_checks(
        [Question("broken", broken), Question("fine", lambda _: [Check("fine", "ok", "")])], deadline=SOON
    )
    assert first.status == "problem"
    assert "the check itself failed" in first.found
    assert "ZeroDivisionError: by zero" in first.found
    assert second.status == "ok"


def test_ctrl_c_is_not_a_finding() -> None:
    def interrupted(_: Deadline) -> list[Check]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_checks([Question("x", interrupted)], deadline=SOON)


def test_each_question_has_its_own_short_deadline() -> None:
    seen: list[float] = []

    def ask(deadline: Deadline) -> list[Check]:
        seen.append(deadline.remaining)
        return []

    assert run_checks([Question("x", ask)], deadline=SOON) == ()
    assert 0 < seen[0] <= 10


def test_names_of_questions_are_unique() -> None:
    names = [question.name for question in host_questions()]
    assert len(names) == len(set(names))
    assert {"python", "qemu", "qemu-img", "accelerator", "port forwarding", "shares", "nix"} <= set(names)


def test_python_version() -> None:
    assert check_python((3, 11, 2)).status == "ok"
    old = check_python((3, 10, 12))
    assert old.status == "problem"
    assert "3.11" in (old.advice or "")


def test_space_is_enough() -> None:
    found = check_space(facts())
    assert [check.status for check in found] == ["ok", "ok", "ok"]
    assert "8 GiB available of 16 GiB, 4 processors" in found[0].found


def test_little_memory_is_a_warning_that_names_the_setting() -> None:
    memory = check_space(facts(memory=GIB))[0]
    assert memory.status == "warning"
    assert "`memory: 512M`" in (memory.advice or "")


@pytest.mark.parametrize(("free", "status"), [(4 * GIB, "warning"), (GIB // 2, "problem")])
def test_little_disk_names_the_variable_that_moves_it(free: int, status: str) -> None:
    _, images, runs = check_space(facts(cache=free, state=free))
    assert (images.status, runs.status) == (status, status)
    assert "XDG_CACHE_HOME" in (images.advice or "")
    assert "XDG_STATE_HOME" in (runs.advice or "")


def test_private_writable_directory_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert check_directory("cache", lambda: tmp_path, "XDG_CACHE_HOME") == Check("cache", "ok", str(tmp_path))


def test_directory_open_to_others_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = check_directory("cache", lambda: tmp_path, "XDG_CACHE_HOME")
    assert found.status == "warning"
    assert "mode 755" in found.found
    assert found.advice == f"chmod 700 {tmp_path}"


def test_directory_that_cannot_be_made_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def make() -> Path:
        (tmp_path / "file" / "below").mkdir()
        return tmp_path

    found = check_directory("state", make, "XDG_STATE_HOME")
    assert found.status == "problem"
    assert "cannot be made" in found.found
    assert "XDG_STATE_HOME" in (found.advice or "")


def test_unwritable_directory_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "os.access", lambda *_: False
    )  # root, as which these tests may run, may write anywhere
    found = check_directory("state", lambda: tmp_path, "XDG_STATE_HOME")
    assert (found.status, found.found) == ("problem", f"{tmp_path} is not writable")


def test_runtime_directory_too_deep_for_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    found = check_directory("runtime directory", lambda: deep, "XDG_RUNTIME_DIR")
    assert found.status == "problem"
    assert "107 bytes" in (found.advice or "")
    assert check_directory("cache", lambda: deep, "XDG_CACHE_HOME").status == "ok"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH to put programs in."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def test_absent_nix_is_only_a_remark(programs: Path) -> None:
    (found,) = check_nix(SOON)
    assert found.status == "ok"
    assert found.found.startswith("not installed")
    assert found.advice is None


def test_nix_version(programs: Path) -> None:
    write_program(programs / "nix-build", "echo 'nix-build (Nix) 2.18.1'")
    assert check_nix(SOON)[0].found == "nix-build (Nix) 2.18.1"


def test_broken_nix_is_a_warning(programs: Path) -> None:
    write_program(programs / "nix-build", "echo 'cannot connect' >&2; exit 3")
    (found,) = check_nix(SOON)
    assert found.status == "warning"
    assert "cannot connect" in found.found

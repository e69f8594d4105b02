"""Running host commands to their end: output, failures, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmrunner.errors import CommandFailed, HostError, RunTimeout, exit_code_of
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command, stop_group


def soon() -> Deadline:
    return Deadline.after(30)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_soon(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is gone; the kernel may need a moment."""
    limit = Deadline.after(2)
    while alive(pid) and limit.pause(0.01):
        pass
    return not alive(pid)


def test_result_holds_both_streams_and_the_code() -> None:
    result = run_command(shell("echo out; echo err >&2"), deadline=soon())
    assert (result.code, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert result.argv[0] == "sh"


def test_200_kb_on_both_streams_block_nobody() -> None:
    program = "import sys; sys.stdout.write('o' * 200_000); sys.stderr.write('e' * 200_000)"
    result = run_command([sys.executable, "-c", program], deadline=soon())
    assert result.stdout == "o" * 200_000
    assert result.stderr == "e" * 200_000


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run_command(shell(r"printf 'a\377b'"), deadline=soon()).stdout == "a�b"


def test_paths_are_arguments_too(tmp_path: Path) -> None:
    assert run_command(["ls", "-d", tmp_path], deadline=soon()).stdout.strip() == str(tmp_path)


def test_no_standard_input() -> None:
    assert run_command(["cat"], deadline=soon()).stdout == ""


def test_file_as_standard_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("hello")
    assert run_command(["cat"], deadline=soon(), stdin=tmp_path / "in").stdout == "hello"


def test_environment_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "k")
    result = run_command(shell('echo "$KEPT $NEW"'), deadline=soon(), env={"NEW": "n"})
    assert result.stdout == "k n\n"


def test_working_directory(tmp_path: Path) -> None:
    assert run_command(["pwd"], deadline=soon(), cwd=tmp_path).stdout.strip() == str(tmp_path)


def test_failure_is_an_error_with_code_and_last_lines() -> None:
    with pytest.raises(CommandFailed, match="`sh` failed with exit code 3") as caught:
        run_command(shell("seq 100; echo why >&2; exit 3"), deadline=soon(), hint="try again")
    error = caught.value
    assert exit_code_of(error) == 20
    assert error.code == 3
    assert error.hint == "try again"
    assert error.output.endswith("99\n100\nwhy")
    assert "\n42\n" not in error.output
    assert "exit code: 3" in (error.details or "")


def test_failure_can_be_a_result() -> None:
    assert run_command(shell("exit 3"), deadline=soon(), check=False).code == 3


def test_death_by_signal_is_a_negative_code() -> None:
    assert run_command(shell("kill -KILL $$"), deadline=soon(), check=False).code == -signal.SIGKILL


def test_missing_program_is_named() -> None:
    with pytest.raises(HostError, match="`no-such-program` is not installed") as caught:
        run_command(["no-such-program"], deadline=soon())
    assert exit_code_of(caught.value) == 20
    assert "doctor" in (caught.value.hint or "")


def test_missing_program_with_the_callers_hint() -> None:
    with pytest.raises(HostError) as caught:
        run_command(["no-such-program"], deadline=soon(), hint="sudo apt install it")
    assert caught.value.hint == "sudo apt install it"


def test_missing_directory_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no such directory") as caught:
        run_command(["true"], deadline=soon(), cwd=tmp_path / "none")
    assert str(tmp_path / "none") in caught.value.message


def test_file_that_is_no_program(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    with pytest.raises(HostError, match="cannot be started: Permission denied"):
        run_command([plain], deadline=soon())
    plain.chmod(0o755)
    with pytest.raises(HostError, match="cannot be started: Exec format error"):
        run_command([plain], deadline=soon())


def test_lines_of_standard_error_come_as_they_are_printed(tmp_path: Path) -> None:
    """The child waits for the file that the first line's listener makes."""
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        (tmp_path / "heard").touch()

    script = "echo one >&2; while [ ! -e heard ]; do sleep 0.01; done; echo two >&2; printf three >&2"
    run_command(shell(script), deadline=soon(), cwd=tmp_path, on_line=listen)
    assert lines == ["one", "two", "three"]


def test_lines_that_were_listened_to_need_not_be_kept() -> None:
    lines: list[str] = []
    script = "seq 50000 >&2; echo out; sleep 0.1; echo last >&2"
    result = run_command(shell(script), deadline=soon(), on_line=lines.append, keep_lines=False)
    assert lines == [*map(str, range(1, 50_001)), "last"]
    assert (result.stdout, result.stderr) == ("out\n", "")


def test_listener_that_raises_ends_the_child(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def listen(_line: str) -> None:
        raise EnoughError

    began = time.monotonic()
    with pytest.raises(EnoughError):
        run_command(
            shell("echo $$ >pid; echo x >&2; sleep 60"), deadline=soon(), cwd=tmp_path, on_line=listen
        )
    assert time.monotonic() - began < 5
    assert gone_soon(int((tmp_path / "pid").read_text()))


def test_deadline_ends_the_child_and_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RunTimeout, match="`sh` did not finish in time") as caught:
        run_command(shell("sleep 60 & echo $! >child; sleep 60"), deadline=Deadline.after(0.3), cwd=tmp_path)
    assert exit_code_of(caught.value) == 25
    assert time.monotonic() - began < 3
    assert gone_soon(int((tmp_path / "child").read_text()))


def test_deadline_ends_whoever_ignores_sigterm(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RunTimeout):
        run_command(
            shell("trap '' TERM; sleep 60 & echo $! >child; while :; do sleep 1; done"),
            deadline=Deadline.after(0.3),
            cwd=tmp_path,
            stop_grace=0.2,
        )
    assert time.monotonic() - began < 3
    assert gone_soon(int((tmp_path / "child").read_text()))


def test_deadline_ends_a_grandchild_that_ignores_sigterm_and_outlived_its_parent(tmp_path: Path) -> None:
    """It holds the pipes, so the command is not over; its parent has ended, so nobody passes signals on."""
    stubborn = 'trap "" TERM; echo $$ >grandchild; while :; do sleep 1; done'
    with pytest.raises(RunTimeout):
        run_command(
            shell(f"sh -c '{stubborn}' & while [ ! -s grandchild ]; do sleep 0.01; done"),
            deadline=Deadline.after(0.5),
            cwd=tmp_path,
        )
    assert gone_soon(int((tmp_path / "grandchild").read_text()))


def test_child_that_closes_its_output_but_stays_is_ended() -> None:
    with pytest.raises(RunTimeout, match="closed its output but did not end in time"):
        run_command(shell("exec >&- 2>&-; exec sleep 60"), deadline=Deadline.after(0.3))


def test_ctrl_c_ends_the_child(tmp_path: Path) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_command(
            shell("echo $$ >pid; echo x >&2; sleep 60"), deadline=soon(), cwd=tmp_path, on_line=interrupt
        )
    assert gone_soon(int((tmp_path / "pid").read_text()))


def test_child_is_out_of_reach_of_the_terminals_ctrl_c() -> None:
    result = run_command([sys.executable, "-c", "import os; print(os.getsid(0))"], deadline=soon())
    assert int(result.stdout) != os.getsid(0)


def test_stopping_gives_time_to_clean_up(tmp_path: Path) -> None:
    script = "trap 'echo cleaned >done; exit 0' TERM; echo >ready; while :; do sleep 0.02; done"
    child = subprocess.Popen(shell(script), cwd=tmp_path, start_new_session=True)
    limit = Deadline.after(5)
    while not (tmp_path / "ready").exists() and limit.pause(0.01):
        pass
    stop_group(child, grace=5)
    assert child.returncode == 0
    assert (tmp_path / "done").read_text() == "cleaned\n"


def test_stopping_what_has_ended_is_no_error() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    child.wait()
    stop_group(child)
    assert child.returncode == 0


def test_stopping_what_has_ended_but_was_not_read_keeps_its_code() -> None:
    child = subprocess.Popen(shell("exit 7"), start_new_session=True)
    limit = Deadline.after(5)
    while alive(child.pid) and limit.pause(0.01):
        pass
    stop_group(child, grace=1)
    assert child.returncode == 7

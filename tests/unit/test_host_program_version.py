"""What programs say to `--version` is asked once for each file, and never recalled of another one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_qemu import write_program

from vmrunner.errors import HostError, RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import cache_dir
from vmrunner.host.program_version import version_output


def write_counting(path: Path, text: str, code: int = 0) -> Path:
    """A program that notes each call, prints `text` and ends with `code`."""
    return write_program(path, f"echo call >>'{path}.calls'\necho '{text}'\necho noise >&2\nexit {code}")


def calls(path: Path) -> int:
    noted = path.with_name(f"{path.name}.calls")
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def ask(path: Path, *arguments: str) -> str:
    return version_output(path, arguments or ["--version"], deadline=Deadline.after(10)).stdout


def memory() -> Path:
    return cache_dir() / "versions.json"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write_counting(tmp_path / "tool", "tool 1.0 ü")


def test_the_second_answer_is_the_first_without_a_second_call(program: Path) -> None:
    assert ask(program) == "tool 1.0 ü\n"
    assert calls(program) == 1
    recalled = version_output(program, ["--version"], deadline=Deadline.after(10))
    assert calls(program) == 1
    assert (recalled.argv, recalled.code, recalled.stdout, recalled.stderr) == (
        [str(program), "--version"], 0, "tool 1.0 ü\n", "",
    )  # fmt: skip


def test_another_question_is_asked_by_itself(program: Path) -> None:
    ask(program, "nextest", "--version")
    ask(program, "--version")
    assert calls(program) == 2
    ask(program, "nextest", "--version")
    ask(program, "--version")
    assert calls(program) == 2


def test_another_program_of_the_same_answer_is_asked_by_itself(program: Path, tmp_path: Path) -> None:
    other = write_counting(tmp_path / "other", "other 2.0")
    assert (ask(program), ask(other), ask(program), ask(other)) == (("tool 1.0 ü\n", "other 2.0\n") * 2)
    assert (calls(program), calls(other)) == (1, 1)


def test_a_program_that_was_replaced_is_asked_again(program: Path) -> None:
    ask(program)
    write_counting(program, "tool 2.0, which is longer")
    assert ask(program) == "tool 2.0, which is longer\n"
    assert len(json.loads(memory().read_text())) == 1, "the old answer is forgotten"


def test_a_replacement_of_the_same_size_is_told_by_its_time(program: Path) -> None:
    ask(program)
    write_counting(program, "tool 9.9 ü")
    os.utime(program, ns=(1, 1))
    assert ask(program) == "tool 9.9 ü\n"


def test_a_link_that_was_led_elsewhere_is_followed(program: Path, tmp_path: Path) -> None:
    other = write_counting(tmp_path / "other", "other 2.0, longer")
    link = tmp_path / "link"
    link.symlink_to(program)
    assert ask(link) == "tool 1.0 ü\n"
    link.unlink()
    link.symlink_to(other)
    assert ask(link) == "other 2.0, longer\n"


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    broken = write_counting(tmp_path / "broken", "libfoo.so: cannot open", code=127)
    for _ in range(2):
        result = version_output(broken, ["--version"], deadline=Deadline.after(10))
        assert (result.code, result.stdout, result.stderr) == (127, "libfoo.so: cannot open\n", "noise\n")
    assert calls(broken) == 2
    assert not memory().exists()


def test_a_program_that_does_not_answer_is_not_remembered(tmp_path: Path) -> None:
    stuck = write_program(tmp_path / "stuck", "while :; do :; done")
    with pytest.raises(RunTimeout):
        version_output(stuck, ["--version"], deadline=Deadline.after(0.2))
    assert not memory().exists()


def test_what_cannot_be_started_is_an_error_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(HostError) as caught:
        ask(tmp_path / "text")
    assert caught.value.exit_code == 20


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"null", b"[1, null, []]", b'[{"command": 1}]', b"\xff\xfe"]
)
def test_a_damaged_memory_is_made_anew(program: Path, content: bytes) -> None:
    memory().write_bytes(content)
    assert ask(program) == ask(program) == "tool 1.0 ü\n"
    assert calls(program) == 1


def test_an_entry_without_an_answer_is_none(program: Path) -> None:
    ask(program)
    (entry,) = json.loads(memory().read_text())
    del entry["output"]
    memory().write_text(json.dumps([entry]))
    assert ask(program) == "tool 1.0 ü\n"
    assert calls(program) == 2


def test_the_memory_is_private(program: Path) -> None:
    ask(program)
    assert memory().stat().st_mode & 0o777 == 0o600


def test_a_memory_that_cannot_be_written_costs_time_only(program: Path) -> None:
    memory().mkdir()  # a rename over a directory fails for everybody, for root too
    assert ask(program) == ask(program) == "tool 1.0 ü\n"
    assert calls(program) == 2

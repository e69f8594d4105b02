"""The command that prepares a guest: only what is to be done, in a form that the guest's program takes."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from guest_programs import PROGRAMS, install_programs

from vmrunner.guest.preparation import Preparation, clear_away_and_arm

EVERYTHING = Preparation(-12.3456789, "db-1.test", "0123456789abcdef" * 2)
NAMES = ["shift=-12.345679", "hostname=db-1.test", "machine-id=0123456789abcdef0123456789abcdef"]


def test_where_there_is_nothing_to_do_there_is_no_command() -> None:
    assert Preparation().command() == ()


def test_each_wish_is_one_word() -> None:
    assert EVERYTHING.command() == ("/usr/lib/vmrunner/prepare", *NAMES)


def test_a_run_is_named_first_and_let_go_last() -> None:
    program, *words = EVERYTHING.command_for_run("20260102-030405-abcdef")
    assert program == "/usr/lib/vmrunner/prepare"
    assert words == ["run=20260102-030405-abcdef", *NAMES, "shares", "mounts", "go"]


def test_what_the_run_before_left_goes_before_anything_is_mounted() -> None:
    words = Preparation().command_for_run("r1", undo=True)[1:]
    assert words == ("run=r1", "undo", "shares", "mounts", "go")


def test_after_a_run_all_is_cleared_away_before_the_next_is_waited_for() -> None:
    assert clear_away_and_arm() == ("/usr/lib/vmrunner/prepare", "undo", "arm")


@pytest.mark.parametrize("shift", [1e-5, 1.5, 123456789.123456, -0.25, 1e9])
def test_a_shift_is_a_plain_number(shift: float) -> None:
    """The guest's program takes no exponents."""
    (word,) = Preparation(shift).command()[1:]
    assert re.fullmatch(r"shift=-?\d+\.\d{6}", word)
    assert float(word.removeprefix("shift=")) == pytest.approx(shift, abs=1e-6)


def test_the_guests_program_knows_every_word() -> None:
    text = (PROGRAMS / "prepare").read_text()
    patterns = re.findall(r"/\^(.*?)\$/", text) + re.findall(r"\$_ eq '(.*?)'", text)
    run = "20260102-030405-abcdef-1"
    for word in (*EVERYTHING.command_for_run(run, undo=True)[1:], *clear_away_and_arm()[1:]):
        assert any(re.fullmatch(pattern, word) for pattern in patterns), word


needs_perl = pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")


@needs_perl
@pytest.mark.parametrize("read_only_file_is_over_it", [True, False])
def test_the_guests_program_writes_the_names(tmp_path: Path, read_only_file_is_over_it: bool) -> None:
    install_programs(tmp_path)
    if read_only_file_is_over_it:
        (tmp_path / "run" / "machine-id").write_text("the image's\n")
    words = Preparation(hostname="db-1.test", machine_id="0123456789abcdef" * 2).command()[1:]
    subprocess.run(["perl", tmp_path / "prepare", *words], check=True)
    assert (tmp_path / "kernel" / "hostname").read_text().strip() == "db-1.test"
    written, other = ("run", "etc") if read_only_file_is_over_it else ("etc", "run")
    assert (tmp_path / written / "machine-id").read_text() == "0123456789abcdef" * 2 + "\n"
    assert not (tmp_path / other / "machine-id").exists()


@needs_perl
@pytest.mark.parametrize(
    "word", ["surprise", "shift=1e5", "shift=", "hostname=a b", "machine-id=ABC", "run=", "run=../x", "go=1"]
)
def test_the_guests_program_refuses_what_it_does_not_know(tmp_path: Path, word: str) -> None:
    install_programs(tmp_path)
    done = subprocess.run(["perl", tmp_path / "prepare", word], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"prepare: what is '{word}'?" in done.stderr


def named(directory: Path, run: str, name: str) -> int:
    """The guest's program asked to give a machine a name, for a run; its exit code."""
    words = ["perl", str(directory / "prepare"), f"run={run}", f"hostname={name}"]
    return subprocess.run(words, check=False, capture_output=True).returncode


@needs_perl
def test_what_is_asked_twice_for_one_run_is_done_once(tmp_path: Path) -> None:
    install_programs(tmp_path)
    hostname = tmp_path / "kernel" / "hostname"
    assert named(tmp_path, "r1", "one") == 0
    assert named(tmp_path, "r1", "again") == 0
    assert hostname.read_text() == "one"
    assert named(tmp_path, "r1-0", "two") == 0
    assert hostname.read_text() == "two"


@needs_perl
def test_what_failed_for_a_run_is_tried_again(tmp_path: Path) -> None:
    install_programs(tmp_path)
    assert named(tmp_path, "r1", "no name") != 0
    assert named(tmp_path, "r1", "name") == 0
    assert (tmp_path / "kernel" / "hostname").read_text() == "name"


@needs_perl
def test_the_guests_program_waits_for_itself(tmp_path: Path) -> None:
    """A run that comes while the one before is being cleared away must not see half of that."""
    install_programs(tmp_path)
    (tmp_path / "run/vmrunner").mkdir()
    with (tmp_path / "run/vmrunner/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(["perl", tmp_path / "prepare", "hostname=db"]) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.2)
            assert not (tmp_path / "kernel" / "hostname").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.wait(10) == 0
    assert (tmp_path / "kernel" / "hostname").read_text() == "db"

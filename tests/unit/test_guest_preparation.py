"""The command that prepares a guest: only what is to be done, in a form that the guest's program takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vmrunner.guest.preparation import Preparation

PROGRAM = Path(__file__).parents[2] / "images" / "guest" / "usr" / "lib" / "vmrunner" / "prepare"
EVERYTHING = Preparation(-12.3456789, "db-1.test", "0123456789abcdef" * 2)


def test_where_there_is_nothing_to_do_there_is_no_command() -> None:
    assert Preparation().command() == ()


def test_each_wish_is_one_word() -> None:
    program, *words = EVERYTHING.command(shares=True)
    assert program == "/usr/lib/vmrunner/prepare"
    assert words == [
        "shift=-12.345679", "hostname=db-1.test", "machine-id=0123456789abcdef0123456789abcdef", "shares",
    ]  # fmt: skip


def test_shares_alone_are_worth_a_command() -> None:
    assert Preparation().command(shares=True)[1:] == ("shares",)


@pytest.mark.parametrize("shift", [1e-5, 1.5, 123456789.123456, -0.25, 1e9])
def test_a_shift_is_a_plain_number(shift: float) -> None:
    """The guest's program takes no exponents."""
    (word,) = Preparation(shift).command()[1:]
    assert re.fullmatch(r"shift=-?\d+\.\d{6}", word)
    assert float(word.removeprefix("shift=")) == pytest.approx(shift, abs=1e-6)


def test_the_guests_program_knows_every_word() -> None:
    patterns = re.findall(r"/\^(.*?)\$/", PROGRAM.read_text())
    for word in EVERYTHING.command()[1:]:
        assert any(re.fullmatch(pattern, word) for pattern in patterns), word


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
@pytest.mark.parametrize("read_only_file_is_over_it", [True, False])
def test_the_guests_program_writes_the_names(tmp_path: Path, read_only_file_is_over_it: bool) -> None:
    """With the guest's paths led to a directory of the test."""
    for name in ("kernel", "etc", "run"):
        (tmp_path / name).mkdir()
    if read_only_file_is_over_it:
        (tmp_path / "run" / "machine-id").write_text("the image's\n")
    program = PROGRAM.read_text().replace("/proc/sys/kernel", f"{tmp_path}/kernel")
    program = program.replace("'/etc/", f"'{tmp_path}/etc/").replace(
        "'/run/machine", f"'{tmp_path}/run/machine"
    )
    (tmp_path / "prepare").write_text(program)
    words = Preparation(hostname="db-1.test", machine_id="0123456789abcdef" * 2).command()[1:]
    subprocess.run(["perl", tmp_path / "prepare", *words], check=True)
    assert (tmp_path / "kernel" / "hostname").read_text().strip() == "db-1.test"
    written, other = ("run", "etc") if read_only_file_is_over_it else ("etc", "run")
    assert (tmp_path / written / "machine-id").read_text() == "0123456789abcdef" * 2 + "\n"
    assert not (tmp_path / other / "machine-id").exists()


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
@pytest.mark.parametrize("word", ["surprise", "shift=1e5", "shift=", "hostname=a b", "machine-id=ABC"])
def test_the_guests_program_refuses_what_it_does_not_know(word: str) -> None:
    done = subprocess.run(["perl", PROGRAM, word], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert word in done.stderr

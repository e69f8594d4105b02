"""README's option table is the one that the rows give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vmrunner.config.rows import all_rows
from vmrunner.config.table import BEGIN, END, option_table, with_option_table

README = Path(__file__).parents[2] / "README.md"


def test_readme_holds_the_current_table() -> None:
    text = README.read_text()
    assert BEGIN in text and END in text, (
        f"README.md lacks the markers {BEGIN} and {END} round its option table"
    )
    assert with_option_table(text) == text, (
        "README.md's option table is out of date: run `python -m vmrunner.config.table README.md`"
    )


def test_every_row_has_its_line() -> None:
    lines = [line for line in option_table().splitlines() if line.startswith("| `")]
    assert len(lines) == len(all_rows())
    for line, row in zip(lines, all_rows(), strict=True):
        assert all(f"`{word}" in line for word in (row.key, row.flag, row.variable))


def test_cells_do_not_break_the_table() -> None:
    lines = [line for line in option_table().splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {6}


def test_text_round_the_markers_stays() -> None:
    assert with_option_table(f"a\n{BEGIN}\nold\n{END}\nb\n") == f"a\n{BEGIN}\n{option_table()}{END}\nb\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_missing_markers_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="options:begin"):
        with_option_table(text)


def test_command_rewrites_the_file(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n{BEGIN}\n{END}\n")
    subprocess.run([sys.executable, "-m", "vmrunner.config.table", readme], check=True)
    assert readme.read_text() == f"# x\n{BEGIN}\n{option_table()}{END}\n"

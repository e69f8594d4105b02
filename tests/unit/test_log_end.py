"""The end of a log: raw for a parser, cleaned for a person."""

from __future__ import annotations

from pathlib import Path

from vmrunner.host.log_end import read_end, tail


def test_tail_takes_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert tail(log, lines=2) == "line 4998\nline 4999"
    assert len(tail(log).splitlines()) == 20


def test_tail_leaves_out_what_a_terminal_would_act_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[2J\x1b[31mred\x1b[0m\x07\x00\t\xc3\xbc\x9b1m\xff\r\nnext\x7f\n")
    text = tail(log)
    assert all(char in "\n\t" or char.isprintable() for char in text)
    assert text == "red\tü\ufffd1m\ufffd\nnext"


def test_tail_of_nothing_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == ""
    (tmp_path / "empty").touch()
    assert tail(tmp_path / "empty") == ""


def test_read_end_keeps_what_a_parser_needs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n\x1b[32mlast\x1b[0m\n")
    assert read_end(log, size=14) == "\x1b[32mlast\x1b[0m\n"
    assert read_end(tmp_path / "none", size=10) == ""

"""What a person sees of a run: plain lines in a log, a bar on a terminal, the tests' own output as it is."""

from __future__ import annotations

import io
import sys

import pytest

from vmrunner.cli.progress import Lines, Terminal, open_display
from vmrunner.events import Event, Note, Output, PhaseFinished, PhaseProgress, PhaseStarted


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


class Screen(io.TextIOWrapper):
    """A terminal that remembers."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        self.flush()
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PhaseStarted("stage", "Staging the sources"), "Staging the sources …\n"),
        (PhaseFinished("stage", 1.26, "12 files"), "  stage done in 1.3 s: 12 files\n"),
        (PhaseFinished("stage", 0.0), "  stage done in 0.0 s\n"),
        (PhaseFinished("stage", 2.0, failed=True), "  stage failed in 2.0 s\n"),
        (Note("accelerator kvm"), "note: accelerator kvm\n"),
        (Note("no KVM here", "warning"), "warning: no KVM here\n"),
        (PhaseProgress("stage", 1, 2, "files"), ""),
        (PhaseStarted("unit", "Running the tests"), ""),
        (PhaseFinished("unit", 9.0), ""),
        (PhaseStarted("mount", "Handing over"), ""),
        (PhaseFinished("mount", 9.0, failed=True), ""),
    ],
)
def test_lines(capsys: pytest.CaptureFixture[str], event: Event, line: str) -> None:
    Lines(stdout=io.BytesIO())(event)
    shown = capsys.readouterr()
    assert shown.err == line
    assert shown.out == ""


def test_a_long_phase_gives_a_sign_of_life_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("vmrunner.cli.progress.time.monotonic", lambda: now[0])
    lines = Lines(stdout=io.BytesIO())
    lines(PhaseStarted("image", "Building"))
    for seconds, event in [
        (10.0, PhaseProgress("image", 1, 9, "packages", "bash")),
        (16.0, PhaseProgress("image", 2, 9, "packages", "dash")),
        (20.0, PhaseProgress("image", 3, 9, "packages")),
        (40.0, PhaseProgress("image", 4, None, "packages", "systemd")),
    ]:
        now[0] = 1000.0 + seconds
        lines(event)
    assert capsys.readouterr().err == "Building …\n  image 2/9 packages dash\n  image systemd\n"


def test_output_is_handed_on_byte_for_byte(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    stdout = io.BytesIO()
    lines = Lines(stdout=stdout)
    lines(Output("stdout", b"\xff\x1b[32mout\n"))
    lines(Output("stderr", b"\x1b[31m\xfeerr"))
    assert stdout.getvalue() == b"\xff\x1b[32mout\n"
    shown = capsysbinary.readouterr()
    assert (shown.out, shown.err) == (b"", b"\x1b[31m\xfeerr")


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"one\n", b"[2/3] one\n"),
        (b"one\ntwo\n", b"[2/3] one\n[2/3] two\n"),
        (b"\n\n", b"[2/3] \n[2/3] \n"),
        (b"\x1b[32m\xff\r\n", b"[2/3] \x1b[32m\xff\r\n"),
        (b"", b""),
    ],
)
def test_each_line_of_a_shard_has_its_label(
    capsysbinary: pytest.CaptureFixture[bytes], printed: bytes, shown: bytes
) -> None:
    stdout = io.BytesIO()
    lines = Lines(stdout=stdout)
    lines(Output("stdout", printed, "2/3"))
    lines(Output("stderr", printed, "2/3"))
    assert stdout.getvalue() == shown
    assert capsysbinary.readouterr().err == shown


def test_colour_in_a_log_only_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    Lines(stdout=io.BytesIO())(Note("x", "warning"))
    assert capsys.readouterr().err == "\x1b[33m\x1b[1mwarning: \x1b[0mx\x1b[0m\n"


def test_the_display_fits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(open_display(stdout=io.BytesIO())) is Lines
    monkeypatch.setattr(sys, "stderr", Screen())
    assert type(open_display(stdout=io.BytesIO())) is Terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert type(open_display(stdout=io.BytesIO())) is Lines


def test_a_whole_run_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, stdout = Screen(), io.BytesIO()
    monkeypatch.setattr(sys, "stderr", screen)
    display = open_display(stdout=stdout)
    for event in (
        Note("accelerator tcg", "warning"),
        PhaseStarted("stage", "Staging the sources"),
        PhaseProgress("stage", 1, 2, "files", "src/lib.rs"),
        Note("in between"),
        PhaseFinished("stage", 0.5, "2 files"),
        PhaseStarted("start", "Starting QEMU"),
        PhaseFinished("start", 0.25, failed=True),
        PhaseStarted("unit", "Running the tests"),
        Output("stderr", b"PASS demo\n"),
        Output("stdout", b"printed\n"),
        PhaseFinished("unit", 1.0),
    ):
        display(event)
    display.close()
    display.close()
    shown = screen.shown
    for text in ("accelerator tcg", "Staging the sources", "src/lib.rs", "in between", "PASS demo\n"):
        assert text in shown
    assert "✓\x1b[0m stage 0.5 s" in shown
    assert "✗\x1b[0m start 0.2 s" in shown
    assert "Running the tests" not in shown
    assert stdout.getvalue() == b"printed\n"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), (
        "the cursor is shown as often as it is hidden"
    )


def test_closing_in_the_middle_of_a_phase_gives_the_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    display = open_display(stdout=io.BytesIO())
    display(PhaseStarted("image", "Building the image"))
    assert screen.shown.count("\x1b[?25l") == 1
    display.close()
    assert screen.shown.count("\x1b[?25h") == 1

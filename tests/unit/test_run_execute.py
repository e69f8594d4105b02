"""The main job where it ends before a machine is started: what is reported, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from fake_qemu import WORKS, fake_qemu, write_program

from vmrunner.config.model import Config
from vmrunner.config.units import Duration, Size
from vmrunner.errors import Interrupted, RunTimeout, UsageError, exit_code_of
from vmrunner.events import Event, Note, PhaseFinished, PhaseStarted, silent
from vmrunner.host.paths import cache_dir, runs_dir
from vmrunner.host.signals import interruptible
from vmrunner.run.execute import TestRequest, run_tests


@pytest.fixture(autouse=True)
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer whose PATH holds a QEMU that proves TCG, and no nextest; vmrunner's directories are empty."""
    for name in ("cache", "state", "cargo"):
        monkeypatch.setenv(f"{'XDG_' if name != 'cargo' else ''}{name.upper()}_HOME", str(tmp_path / name))
    (tmp_path / "bin").mkdir()
    fake_qemu(tmp_path / "bin", {"tcg max": WORKS})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/Cargo.toml").touch()
    return tmp_path


def request(base: Path, *nextest_args: str, **settings: object) -> TestRequest:
    return TestRequest(
        config=Config.model_validate({"accel": "tcg", "memory": Size.parse("128M"), **settings}),
        workspace=base / "ws",
        nextest_args=nextest_args,
    )


def left_over() -> list[str]:
    return [path.name for path in (cache_dir() / "scratch").iterdir()]


def test_an_error_is_in_the_report_and_in_its_file(computer: Path) -> None:
    report = run_tests(request(computer, "--archive-file", "x"), emit=silent)
    assert report.outcome == "error"
    assert isinstance(report.error, UsageError)
    written = json.loads(report.run.report.read_text())
    assert written == report.as_json()
    assert written["error"]["kind"] == "UsageError"
    assert written["error"]["exit_code"] == 2
    assert left_over() == []


def test_reserved_arguments_are_refused_before_anything_else(computer: Path) -> None:
    report = run_tests(request(computer, "--archive-file", "x"), emit=silent)
    assert isinstance(report.error, UsageError)
    assert report.phases == []


def test_choosing_what_to_build_does_not_go_with_a_built_archive(computer: Path) -> None:
    report = run_tests(request(computer, "--release", archive=computer / "a.tar.zst"), emit=silent)
    assert report.error is not None
    assert "the archive is already built" in report.error.message


@pytest.mark.parametrize("argument", [("--partition", "slice:1/2"), ("--partition=count:1/2",)])
def test_a_partition_of_ones_own_does_not_go_with_shards(computer: Path, argument: tuple[str, ...]) -> None:
    report = run_tests(request(computer, *argument, shards=2), emit=silent)
    assert isinstance(report.error, UsageError)
    assert exit_code_of(report.error) == 2
    assert "`--partition`" in report.error.message
    assert "`--shards`" in report.error.message
    assert report.error.hint == "leave out one of the two"
    assert report.phases == []


def test_a_partition_without_shards_or_for_the_tests_themselves_is_nobodys_concern(computer: Path) -> None:
    assert request(computer, "--partition", "slice:1/2").arguments.run == ("--partition", "slice:1/2")
    assert request(computer, "--", "--partition", "x", shards=2).arguments.run == ("--", "--partition", "x")


def test_memory_is_checked_before_anything_is_started(computer: Path) -> None:
    report = run_tests(request(computer, memory=Size.parse("64T")), emit=silent)
    assert report.error is not None
    assert exit_code_of(report.error) == 2
    assert report.error.message.startswith("`memory` is 64T, but this host has ")


def test_events_are_kept_as_lines_of_json(computer: Path) -> None:
    told: list[Event] = []
    report = run_tests(request(computer, archive=computer / "none.tar.zst"), emit=told.append)
    lines = [json.loads(line) for line in report.run.events_log.read_text().splitlines()]
    assert [line["event"] for line in lines] == [type(event).__name__ for event in told]
    assert lines[0] == {"event": "PhaseStarted", **vars(told[0])}
    assert {PhaseStarted, PhaseFinished, Note} >= {type(event) for event in told}


def test_a_time_that_is_up_says_in_which_phase(computer: Path) -> None:
    write_program(computer / "bin/qemu-system-x86_64", "case $1 in --version) echo QEMU emulator version 8.2.2;; "
                  "*) sleep 5;; esac")  # fmt: skip
    report = run_tests(request(computer, timeout=Duration(2.0)), emit=silent)
    assert isinstance(report.error, RunTimeout)
    assert "accelerator" in report.error.message
    assert exit_code_of(report.error) == 25


def test_a_signal_leaves_a_report_and_no_scratch(computer: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught, interruptible():
        run_tests(request(computer), emit=interrupt)
    assert caught.value.exit_code == 143
    (run,) = runs_dir().iterdir()
    assert json.loads((run / "report.json").read_text())["outcome"] == "error"
    assert left_over() == []

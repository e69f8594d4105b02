"""Making an archive, with a stand-in for cargo-nextest that does as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.errors import CommandFailed, HostError, NextestFailed, RunTimeout, UsageError, exit_code_of
from vmrunner.events import Event, Output, PhaseFinished
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.archive import make_archive
from vmrunner.nextest.tool import NextestTool

WRITES = 'for word; do case "$before" in --archive-file) echo archive > "$word";; esac; before="$word"; done'


class Maker:
    """A workspace, and a cargo-nextest that is a shell script."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.workspace = directory / "ws"
        self.workspace.mkdir()
        (self.workspace / "Cargo.toml").touch()
        self.destination = directory / "out" / "tests.tar.zst"
        self.destination.parent.mkdir()
        self.events: list[Event] = []

    def make(
        self,
        script: str,
        *arguments: str,
        seconds: float = 60,
        color: bool = False,
        workspace: Path | None = None,
    ) -> Path:
        program = self.directory / "cargo-nextest"
        program.write_text(f'#!/bin/sh\necho "$PWD: $*" > {self.directory}/called\n{script}\n')
        program.chmod(0o755)
        return make_archive(
            workspace or self.workspace,
            tool=NextestTool(program, "0.9.148", "x86_64", None, None),
            cargo_args=arguments,
            destination=self.destination,
            emit=self.events.append,
            deadline=Deadline.after(seconds),
            color=color,
        )

    @property
    def called(self) -> str:
        return (self.directory / "called").read_text()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.destination.parent.iterdir())


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.setenv("CARGO", "true")
    return Maker(tmp_path)


def test_the_archive_appears_under_its_name(maker: Maker) -> None:
    assert maker.make(WRITES) == maker.destination
    assert maker.destination.read_text() == "archive\n"
    assert maker.left == ["tests.tar.zst"]


def test_nextest_runs_in_the_workspace_with_the_users_arguments(maker: Maker) -> None:
    maker.make(WRITES, "--release", "-p", "core")
    assert maker.called.startswith(f"{maker.workspace}: nextest archive --color never --archive-file ")
    assert maker.called.endswith(".tar.zst --release -p core\n")


def test_colours_where_they_are_wanted(maker: Maker) -> None:
    maker.make(WRITES, color=True)
    assert "--color always" in maker.called


def test_what_cargo_prints_is_shown(maker: Maker) -> None:
    maker.make(f"echo Compiling a >&2; printf '\\033[1mFinished\\033[0m\\n' >&2; {WRITES}")
    shown = [event.data for event in maker.events if isinstance(event, Output) and event.stream == "stderr"]
    assert shown == [b"Compiling a\n", b"\x1b[1mFinished\x1b[0m\n"]
    finished = [event for event in maker.events if isinstance(event, PhaseFinished)]
    assert [(event.name, event.failed) for event in finished] == [("archive", False)]


def test_a_directory_inside_a_workspace_will_do(maker: Maker) -> None:
    inside = maker.workspace / "member" / "src"
    inside.mkdir(parents=True)
    maker.make(WRITES, workspace=inside)
    assert maker.called.startswith(f"{inside}: ")


@pytest.mark.parametrize(
    ("code", "meaning"), [(101, "could not be built"), (94, "filterset"), (96, "set up"), (2, "arguments")]
)
def test_nextests_own_exit_code_is_passed_on(maker: Maker, code: int, meaning: str) -> None:
    with pytest.raises(NextestFailed) as caught:
        maker.make(f"echo error: it broke >&2; {WRITES}; exit {code}")
    assert exit_code_of(caught.value) == code
    assert meaning in caught.value.message
    assert caught.value.details
    assert "error: it broke" in caught.value.details
    assert maker.left == []


@pytest.mark.parametrize("ending", ["kill -9 $$", "exit 77"])
def test_an_accident_is_no_verdict(maker: Maker, ending: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        maker.make(ending)
    assert caught.value.exit_code == 20


def test_no_cargo_toml(maker: Maker, tmp_path: Path) -> None:
    (maker.workspace / "Cargo.toml").unlink()
    with pytest.raises(UsageError) as caught:
        maker.make(WRITES)
    assert caught.value.exit_code == 2
    assert str(maker.workspace) in caught.value.message
    assert caught.value.hint


def test_no_directory(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        maker.make(WRITES, workspace=tmp_path / "none")


def test_no_cargo(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARGO", "no-such-cargo")
    with pytest.raises(HostError) as caught:
        maker.make(WRITES)
    assert caught.value.exit_code == 20
    assert "`no-such-cargo` is not installed" in caught.value.message
    assert caught.value.hint
    assert "rustup" in caught.value.hint


def test_the_time_is_up(maker: Maker) -> None:
    with pytest.raises(RunTimeout):
        maker.make(f"{WRITES}; exec sleep 60", seconds=0.3)
    assert maker.left == []

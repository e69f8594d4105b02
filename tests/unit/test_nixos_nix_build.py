"""How Nix is called, what of its output is told to a person, and that nothing is left when it does not end well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_nix import FakeNix, install_fake_nix
from nix_samples import message, started

from vmrunner.errors import HostError, ImageBuildFailed, RunTimeout, exit_code_of
from vmrunner.events import Event, Note, Phase, PhaseProgress, silent
from vmrunner.host.deadline import Deadline
from vmrunner.image.nixos.nix_build import (
    BuildResult,
    add_root,
    build,
    evaluate,
    nix_version,
    program,
)


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNix:
    return install_fake_nix(tmp_path / "nix-programs", monkeypatch)


def built(tmp_path: Path, seen: list[Event] | None = None, seconds: float = 20) -> BuildResult:
    return build(
        Path("/expressions"),
        attribute="image",
        arguments={"spec": "/a b.json"},
        out_link=tmp_path / "result",
        current=Phase("build", seen.append if seen is not None else silent),
        deadline=Deadline.after(seconds),
    )


def test_command_and_result(tmp_path: Path, nix: FakeNix) -> None:
    nix.builds(nix.store / "x-image", files_read=(Path("/home/user/vm.nix"),))
    assert built(tmp_path) == BuildResult(nix.store / "x-image", frozenset({Path("/home/user/vm.nix")}))
    (call,) = nix.calls
    assert call[:6] == ["nix-build", "/expressions", "-A", "image", "--argstr", "spec"]
    assert call[6:9] == ["/a b.json", "-o", str(tmp_path / "result")]
    assert call[9:] == ["--log-format", "internal-json", "-vv", "--show-trace"]
    assert (tmp_path / "result").readlink() == nix.store / "x-image"


def test_channels_and_search_path_are_not_seen(
    tmp_path: Path, nix: FakeNix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_PATH", "nixpkgs=/somewhere")
    nix.builds(nix.store / "x", before=f'echo "[$NIX_PATH]" > {tmp_path}/seen')
    built(tmp_path)
    assert (tmp_path / "seen").read_text() == "[]\n"


def test_nix_that_does_not_say_what_it_reads(tmp_path: Path, nix: FakeNix) -> None:
    nix.builds(nix.store / "x")
    assert built(tmp_path).files_read is None


def test_progress_and_warnings_come_while_it_runs(tmp_path: Path, nix: FakeNix) -> None:
    lines = [
        started(1, 104),
        '@nix {"action":"result","id":1,"type":105,"fields":[2,7,1,0]}',
        started(2, 105, "/nix/store/" + "a" * 32 + "-linux-6.12.drv"),
        message("evaluation warning: services.x is old", level=1),
    ]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    seen: list[Event] = []
    nix.builds(nix.store / "x", before=f"sleep 0.2; cat {tmp_path}/lines >&2; sleep 0.3; echo later >&2")
    built(tmp_path, seen)
    assert Note("Nix: services.x is old", level="warning") in seen
    last = [event for event in seen if isinstance(event, PhaseProgress)][-1]
    assert (last.done, last.total, last.text) == (2, 7, "building linux-6.12")


def test_failure_has_its_meaning_and_leaves_no_link(tmp_path: Path, nix: FakeNix) -> None:
    error = message("error: x", raw_msg="undefined variable 'y'")
    nix.builds(
        nix.store / "x", before=f"ln -s / {tmp_path}/result; echo '{error.replace(chr(39), '')}' >&2; exit 1"
    )
    with pytest.raises(ImageBuildFailed, match="undefined variable") as caught:
        built(tmp_path)
    assert exit_code_of(caught.value) == 21
    assert not os.path.lexists(tmp_path / "result")


def test_old_link_is_no_result(tmp_path: Path, nix: FakeNix) -> None:
    (tmp_path / "result").symlink_to("/old")
    nix.program("nix-build", "exit 1")
    with pytest.raises(ImageBuildFailed):
        built(tmp_path)
    assert not os.path.lexists(tmp_path / "result")


def test_deadline_ends_nix_and_says_what_it_did(tmp_path: Path, nix: FakeNix) -> None:
    line = started(2, 105, "/nix/store/" + "a" * 32 + "-linux-6.12.drv")
    nix.program(
        "nix-build", f"echo $$ > {tmp_path}/pid; echo '{line}' >&2; ln -s / {tmp_path}/result; sleep 60"
    )
    with pytest.raises(
        RunTimeout, match=r"nix-build did not finish in time; it was building linux-6\.12"
    ) as caught:
        built(tmp_path, seconds=1)
    assert exit_code_of(caught.value) == 25
    assert not os.path.lexists(tmp_path / "result")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_interruption_ends_nix(tmp_path: Path, nix: FakeNix) -> None:
    nix.program(
        "nix-build",
        f"echo $$ > {tmp_path}/pid; echo x >&2; ln -s / {tmp_path}/result; sleep 0.3; echo y >&2; sleep 60",
    )

    def interrupt(event: Event) -> None:
        if (tmp_path / "result").is_symlink():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(
            Path("/x"),
            attribute="image",
            arguments={},
            out_link=tmp_path / "result",
            current=Phase("build", interrupt),
            deadline=Deadline.after(20),
        )
    assert not os.path.lexists(tmp_path / "result")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_several_outputs_are_none(tmp_path: Path, nix: FakeNix) -> None:
    nix.program("nix-build", "echo /nix/store/a; echo /nix/store/b")
    with pytest.raises(ImageBuildFailed, match="2 store paths"):
        built(tmp_path)


def test_value_of_an_expression(nix: FakeNix) -> None:
    nix.program("nix-instantiate", """echo '{"a": [1]}'""")
    value = evaluate(
        Path("/x.nix"), arguments={"b": "c"}, current=Phase("x", silent), deadline=Deadline.after(20)
    )
    assert value == {"a": [1]}
    (call,) = nix.calls
    assert call[:6] == ["nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "/x.nix"]
    assert call[6:9] == ["--argstr", "b", "c"]


def test_value_that_is_none(nix: FakeNix) -> None:
    nix.program("nix-instantiate", "echo '<CODE>'")
    with pytest.raises(ImageBuildFailed, match="did not print JSON"):
        evaluate(Path("/x.nix"), arguments={}, current=Phase("x", silent), deadline=Deadline.after(20))


def test_root_of_a_path_that_is_gone(tmp_path: Path, nix: FakeNix) -> None:
    nix.builds(nix.store / "x")
    with pytest.raises(ImageBuildFailed):
        add_root(nix.store / "gone", tmp_path / "root", deadline=Deadline.after(20))


@pytest.mark.parametrize(
    ("said", "text", "numbers"),
    [
        ("nix-build (Nix) 2.8.0", "2.8.0", (2, 8, 0)),
        ("nix-build (Nix) 2.26.3", "2.26.3", (2, 26, 3)),
        ("nix-build (Nix) 2.25pre20240910_abcdef", "2.25", (2, 25)),
        ("nix-build (Determinate Nix 3.8.5) 2.30.2", "2.30.2", (2, 30, 2)),
        ("nix-build (Lix, like Nix) 2.93.3", "2.93.3", (2, 18, 3)),
    ],
)
def test_versions(nix: FakeNix, said: str, text: str, numbers: tuple[int, ...]) -> None:
    path = nix.program("nix-build", "exit 1", version=said)
    found = nix_version(deadline=Deadline.after(20))
    assert (found.program, found.text, found.numbers) == (path, text, numbers)


def test_program_that_does_not_say_its_version(nix: FakeNix) -> None:
    nix.program("nix-build", "exit 1", version="hello")
    with pytest.raises(HostError, match="does not say which version"):
        nix_version(deadline=Deadline.after(20))


def test_no_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="`nix-build` is not on PATH") as caught:
        program("nix-build")
    assert exit_code_of(caught.value) == 20
    assert "--image debian" in (caught.value.hint or "")

"""mmdebstrap: its arguments, what a person sees of it, and what its failures mean."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from sample_recipes import FIELDS

from vmrunner.errors import CommandFailed, ImageBuildFailed, exit_code_of
from vmrunner.events import Event, Phase, PhaseProgress
from vmrunner.host.deadline import Deadline
from vmrunner.image.bootstrap import build_failure, full_disk_named, make_system, mmdebstrap_argv
from vmrunner.image.recipe import Recipe

RECIPE = Recipe.model_validate(FIELDS | {"finish": "rm -f /vmlinuz*\n"})
LINES = """\
I: running apt-get update...
Get:1 http://mirror.example/debian trixie InRelease [140 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example/debian trixie/main amd64 gcc-14-base amd64 14.2.0-19 [49.4 kB]
Get:2 http://mirror.example/debian trixie/main amd64 libc6 amd64 2.41-12 [2847 kB]
Unpacking libc6:amd64 (2.41-12) ...
Setting up libc6:amd64 (2.41-12) ...
"""


def _failure(output: str, packages: tuple[str, ...] = ()) -> ImageBuildFailed:
    error = build_failure(CommandFailed(["mmdebstrap"], 25, output), packages)
    assert exit_code_of(error) == 21
    assert output in (error.details or "")
    assert error.hint
    return error


def test_arguments_name_everything_of_the_recipe() -> None:
    argv = mmdebstrap_argv(
        RECIPE, packages=("b", "a", "systemd-sysv"), mode="unshare", target=Path("/x/s.tar")
    )
    assert argv[0] == "mmdebstrap"
    assert {"--mode=unshare", "--format=tar", "--include=systemd-sysv,a,b"} <= set(argv)
    assert f"--keyring={RECIPE.keyring}" in argv
    assert argv[-3:] == ["trixie", "/x/s.tar", *RECIPE.sources]


def test_recipe_finishes_in_the_new_system() -> None:
    argv = mmdebstrap_argv(RECIPE, packages=(), mode="unshare", target=Path("/x"))
    assert "--customize-hook=chroot \"$1\" sh -euc 'rm -f /vmlinuz*\n'" in argv


def test_root_mounts_where_nobody_else_sees_it() -> None:
    argv = mmdebstrap_argv(RECIPE, packages=(), mode="root", target=Path("/x"))
    assert argv[: argv.index("mmdebstrap")] == ["unshare", "--mount", "--propagation", "private", "--"]


def _fake_mmdebstrap(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "mmdebstrap"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def _make(tmp_path: Path, seen: list[Event], packages: tuple[str, ...] = ()) -> None:
    make_system(
        RECIPE,
        packages=packages,
        mode="unshare",
        target=tmp_path / "system.tar",
        deadline=Deadline.after(20),
        current=Phase("image", seen.append),
    )


def test_progress_counts_each_package_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_mmdebstrap(tmp_path, monkeypatch, f"cat >&2 <<'END'\n{LINES}END\n")
    seen: list[Event] = []
    _make(tmp_path, seen)
    told = [(event.done, event.total, event.text) for event in seen if isinstance(event, PhaseProgress)]
    assert told == [
        (0, None, "running apt-get update"),
        (0, None, "downloading packages with apt"),
        (1, 6, "downloading gcc-14-base [49.4 kB]"),
        (2, 6, "downloading libc6 [2847 kB]"),
        (3, 6, "unpacking libc6"),
        (4, 6, "setting up libc6"),
    ]


def test_kernel_package_makes_no_initrd_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_mmdebstrap(tmp_path, monkeypatch, f'echo "$INITRD" > {tmp_path}/seen\n')
    _make(tmp_path, [])
    assert (tmp_path / "seen").read_text() == "No\n"


def test_failure_of_the_program_gets_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_mmdebstrap(tmp_path, monkeypatch, 'echo "E: Unable to locate package postgresq1" >&2; exit 25\n')
    with pytest.raises(ImageBuildFailed, match="Debian has no package postgresq1"):
        _make(tmp_path, [], packages=("postgresq1",))


def test_users_package_and_recipes_package_are_told_apart() -> None:
    output = "E: Unable to locate package nosuch"
    assert "`packages:` of vmrunner.yaml" in _failure(output, ("nosuch",)).message
    assert "the recipe asks" in _failure(output).message


def test_virtual_package_without_candidate() -> None:
    assert (
        "no package mail-agent" in _failure("E: Package 'mail-agent' has no installation candidate").message
    )


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("  Could not resolve 'mirror.example'", "could not resolve mirror.example"),
        ("  Could not connect to 127.0.0.1:9 (127.0.0.1).", "could not connect to 127.0.0.1:9"),
        ("E: Failed to fetch http://mirror.example/x  404", "failed to fetch http://mirror.example/x"),
        ("  Temporary failure resolving 'mirror.example'", "temporary failure resolving mirror.example"),
    ],
)
def test_unreachable_mirror(output: str, named: str) -> None:
    error = _failure(output)
    assert error.message == f"the Debian mirror cannot be reached: {named}"
    assert "proxy" in (error.hint or "")


def test_full_disk_in_a_package() -> None:
    error = _failure("dpkg: error: cannot copy: No space left on device")
    assert "the disk filled up" in error.message
    assert "image prune" in (error.hint or "")


def test_reason_that_stands_far_above_the_end_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'echo "dpkg: error: cannot copy: No space left on device" >&2; seq 1000 >&2; exit 25\n'
    _fake_mmdebstrap(tmp_path, monkeypatch, script)
    with pytest.raises(ImageBuildFailed, match="the disk filled up"):
        _make(tmp_path, [])


def test_other_failure_points_to_the_last_lines() -> None:
    assert _failure("E: something new").message == "mmdebstrap failed to make the Debian system"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_in_a_step_of_ours(tmp_path: Path, code: int) -> None:
    with pytest.raises(ImageBuildFailed, match="filled up") as caught, full_disk_named(tmp_path / "build"):
        raise OSError(code, "full")
    assert str(tmp_path) in caught.value.message
    assert "image prune" in (caught.value.hint or "")


def test_full_disk_in_a_tool(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildFailed, match="filled up"), full_disk_named(tmp_path / "build"):
        raise CommandFailed(["tar"], 2, "tar: x: Cannot write: No space left on device")


def test_tool_that_fails_otherwise_is_a_failed_build(tmp_path: Path) -> None:
    with (
        pytest.raises(ImageBuildFailed, match="`mke2fs` failed") as caught,
        full_disk_named(tmp_path / "build"),
    ):
        raise CommandFailed(["mke2fs"], 1, "bad option")
    assert "bad option" in (caught.value.details or "")


def test_other_system_error_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_named(tmp_path / "build"):
        raise PermissionError(errno.EACCES, "no")

"""Filling the share that the guest reads, from a small real archive and a small workspace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from nextest_archives import binaries_metadata, cargo_metadata, demo_members, metadata_members, write_archive

from vmrunner.config.model import Config
from vmrunner.errors import UsageError, exit_code_of
from vmrunner.events import Event, Note, PhaseFinished, silent
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.extract import ExtractedArchive, extract_archive
from vmrunner.nextest.metadata import ArchiveInfo
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.staging import StagedJob, sources_of, stage_job


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "ws"
    (directory / "src").mkdir(parents=True)
    (directory / "Cargo.toml").write_text("[package]\n")
    (directory / "src/lib.rs").write_text("// demo\n")
    (directory / "target").mkdir()
    (directory / "target/junk").touch()
    return directory


@pytest.fixture
def extracted(tmp_path: Path) -> Iterator[ExtractedArchive]:
    archive = write_archive(tmp_path / "a.tar.zst", demo_members())
    (tmp_path / "archives").mkdir()
    with extract_archive(
        archive, cache=tmp_path / "archives", emit=silent, deadline=Deadline.after(10)
    ) as one:
        yield one


def stage(run: RunDirectory, workspace: Path, extracted: ExtractedArchive, **more: Any) -> StagedJob:
    wanted: dict[str, Any] = {
        "config": Config(), "tool": None, "nextest_args": (), "environment": {}, "color": False, "emit": silent,
    }  # fmt: skip
    wanted |= more
    return stage_job(
        wanted.pop("config"),
        run,
        workspace=workspace,
        extracted=extracted,
        deadline=Deadline.after(10),
        **wanted,
    )


def command_of(run: RunDirectory) -> str:
    """The last line of the script, which becomes nextest."""
    return (run.inbox / "run").read_text().splitlines()[-1]


def test_what_the_guest_finds(run: RunDirectory, workspace: Path, extracted: ExtractedArchive) -> None:
    events: list[Event] = []
    job = stage(run, workspace, extracted, emit=events.append)
    assert {path.name for path in run.inbox.iterdir()} == {
        "run", "mounts", "hosts", "resolv.conf", "sources", "target", "nextest",
    }  # fmt: skip
    assert (run.inbox / "sources/src/lib.rs").read_text() == "// demo\n"
    assert not (run.inbox / "sources/target").exists()
    assert (run.inbox / "target/debug/demo").samefile(extracted.target / "debug/demo")
    assert (run.inbox / "target/tmp").is_dir()
    assert (run.out / "store").is_dir()
    assert job == StagedJob(PurePosixPath("store/default/junit.xml"))
    finished = events[-1]
    assert isinstance(finished, PhaseFinished)
    assert (finished.name, finished.text) == ("stage", "2 files, 2 of them new")


def test_sources_and_target_appear_where_they_were_compiled(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    stage(run, workspace, extracted)
    mounts = (run.inbox / "mounts").read_text()
    assert "workspace /build/ws overlay " in mounts
    assert "target /build/ws/target overlay " in mounts
    assert "cd /build/ws ||" in (run.inbox / "run").read_text()
    assert "--workspace-remap" not in command_of(run)


def test_a_path_that_the_guest_cannot_have_is_remapped_and_told(
    run: RunDirectory, workspace: Path, tmp_path: Path
) -> None:
    binaries = binaries_metadata("/usr/src/ws/target")
    cargo = cargo_metadata("/usr/src/ws/target", workspace_root="/usr/src/ws")
    archive = write_archive(tmp_path / "b.tar.zst", [*metadata_members(binaries, cargo), *demo_members()[2:]])
    events: list[Event] = []
    (tmp_path / "archives").mkdir()
    with extract_archive(
        archive, cache=tmp_path / "archives", emit=silent, deadline=Deadline.after(10)
    ) as extracted:
        stage(run, workspace, extracted, emit=events.append)
    assert events[0] == Note(
        "the guest cannot have the path /usr/src/ws: nextest remaps to /var/lib/cargo-nextest/workspace",
        "warning",
    )
    assert "--workspace-remap /var/lib/cargo-nextest/workspace " in command_of(run)
    assert "--target-dir-remap /var/lib/cargo-nextest/workspace/target " in command_of(run)


def test_the_hosts_nextest_is_carried_in_where_the_image_has_none(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive, tmp_path: Path
) -> None:
    program = tmp_path / "real-nextest"
    program.write_text("program")
    program.chmod(0o755)
    (tmp_path / "cargo-nextest").symlink_to(program)
    tool = NextestTool(tmp_path / "cargo-nextest", "0.9.148", "x86_64", None, None)
    stage(run, workspace, extracted, tool=tool)
    carried = run.inbox / "bin/cargo-nextest"
    assert carried.read_text() == "program"
    assert not carried.is_symlink()
    assert carried.stat().st_mode & 0o111
    assert command_of(run).startswith('exec "$nextest" nextest run ')
    script = (run.inbox / "run").read_text()
    assert f"nextest=/var/lib/vmrunner/nextest/{tool.identity}/cargo-nextest\n" in script
    assert '[ -x "$nextest" ] || nextest=/run/vmrunner/in/bin/cargo-nextest\n' in script


def test_the_images_own_nextest_is_found_on_the_path(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    stage(run, workspace, extracted)
    assert command_of(run).startswith("exec cargo-nextest nextest run ")
    assert not (run.inbox / "bin").exists()


def test_settings_and_arguments_arrive(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    config = Config(hosts={"10.0.0.1": ("db.test",)}, network="user")
    stage(
        run, workspace, extracted, config=config, nextest_args=("-E", "test(a b)"), color=True,
        environment={"RUST_LOG": "a b"},
    )  # fmt: skip
    assert (run.inbox / "hosts").read_text().endswith("10.0.0.1 db.test\n")
    assert "nameserver 10.0.2.3" in (run.inbox / "resolv.conf").read_text()
    assert "export RUST_LOG='a b'\n" in (run.inbox / "run").read_text()
    assert command_of(run).endswith("-E 'test(a b)'")
    assert "--color always" in command_of(run)
    assert subprocess.run(["sh", "-n", run.inbox / "run"], check=False).returncode == 0


def test_the_profile_decides_where_the_report_will_be(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    assert stage(run, workspace, extracted, nextest_args=("--profile", "ci")).junit == PurePosixPath(
        "store/ci/junit.xml"
    )


def test_a_repository_with_a_store_of_its_own_gets_it_bound(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    (workspace / ".config").mkdir()
    (workspace / ".config/nextest.toml").write_text(
        '[store]\ndir = "my store"\n[profile.default.junit]\npath = "r.xml"\n'
    )
    job = stage(run, workspace, extracted)
    assert job.junit == PurePosixPath("store/default/r.xml")
    assert (
        "/run/vmrunner/out/store /build/ws/my\\040store none X-mount.mkdir,bind 0 0"
        in (run.inbox / "mounts").read_text()
    )


def test_nextest_is_told_where_the_guest_has_the_standard_library(
    run: RunDirectory, workspace: Path, extracted: ExtractedArchive
) -> None:
    stage(run, workspace, extracted)
    document = json.loads((run.inbox / "nextest/binaries-metadata.json").read_text())
    libdir = document["rust-build-meta"]["platforms"]["host"]["libdir"]["path"]
    assert libdir == "/build/ws/target/nextest/libdirs/host"


def info_for(extracted: ExtractedArchive, root: Path) -> ArchiveInfo:
    return replace(extracted.info, workspace_root=PurePosixPath(root))


def test_sources_of_an_archive_built_here_are_where_cargo_found_them(
    extracted: ExtractedArchive, workspace: Path
) -> None:
    info = info_for(extracted, workspace)
    assert sources_of(info, given=workspace / "src", built_here=True) == workspace


def test_sources_of_an_archive_from_elsewhere_are_where_the_user_says(
    extracted: ExtractedArchive, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(workspace)
    for given in (workspace, tmp_path / "link"):
        assert sources_of(extracted.info, given=given, built_here=False) == workspace.resolve()


def test_sources_of_an_archive_may_be_at_its_own_path(
    extracted: ExtractedArchive, workspace: Path, tmp_path: Path
) -> None:
    assert sources_of(info_for(extracted, workspace), given=tmp_path, built_here=False) == workspace.resolve()


def test_sources_that_are_nowhere(extracted: ExtractedArchive, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither in .* nor in /build/ws") as caught:
        sources_of(extracted.info, given=tmp_path, built_here=False)
    assert exit_code_of(caught.value) == 2
    assert "vmrunner test WORKSPACE --archive FILE" in str(caught.value.hint)

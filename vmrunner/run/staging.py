"""Fill the share that the guest reads: sources, extracted archive, nextest, and the files that say what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import UsageError
from vmrunner.events import Emit, Note, Phase, phase
from vmrunner.guest import inbox
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import cache_dir, private
from vmrunner.nextest.arguments import GuestPaths, guest_command, option_value
from vmrunner.nextest.configuration import JunitLocation, junit_location, selected_profile, tool_config
from vmrunner.nextest.extract import ExtractedArchive, guest_binaries_metadata
from vmrunner.nextest.metadata import ArchiveInfo
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.sources import link_or_copy, stage_sources

_BINARIES_METADATA = "binaries-metadata.json"
_CARGO_METADATA = "cargo-metadata.json"
_TOOL_CONFIG = "vmrunner.toml"
_DEFAULTS = Config()


@dataclass(frozen=True)
class StagedJob:
    """What was staged: where the guest's JUnit report will be, below the run's `out`, and what the run may write.

    `log_limit` is for what nextest and the tests print, `output_limit` for all of the share; bytes.
    """

    junit: PurePosixPath
    log_limit: Size = _DEFAULTS.log_limit
    output_limit: Size = _DEFAULTS.output_limit


def stage_job(
    config: Config,
    run: RunDirectory,
    *,
    workspace: Path,
    extracted: ExtractedArchive,
    tool: NextestTool | None,
    nextest_args: Sequence[str],
    environment: Mapping[str, str],
    color: bool,
    emit: Emit,
    deadline: Deadline,
    host_store: bool = False,
) -> StagedJob:
    """Fill `run.inbox`. `tool` is carried into the guest where the image has no nextest of its own.

    `host_store`: the programs are to see this host's Nix store, which the machine can mount.
    `workspace` is where the sources are on this host; they may have been built elsewhere, under the archive's own path.
    """
    layout = _layout_of(extracted.info, emit)
    with phase(emit, "stage", f"Staging the sources from {workspace}") as current:
        _stage_files(workspace, extracted, run.inbox, current=current, deadline=deadline)
        location = _junit_of(workspace, nextest_args, environment)
        command = _write_nextest_files(
            run, extracted, layout, tool=tool, nextest_args=nextest_args, color=color
        )
        job = inbox.Job(
            layout=layout,
            command=tuple(command),
            network=config.network,
            dns=config.dns,
            hosts=config.hosts,
            environment=environment,
            store_bind=_store_bind(location, layout),
            installed_nextest=inbox.installed_nextest(tool.identity) if tool else None,
            hostname=config.hostname or "",
            host_store=host_store,
        )
        _write_job(job, run)
    return StagedJob(PurePosixPath(inbox.STORE) / location.file, config.log_limit, config.output_limit)


def _layout_of(info: ArchiveInfo, emit: Emit) -> inbox.GuestLayout:
    layout = inbox.layout_for(
        Path(info.workspace_root), Path(info.target_directory), Path(info.build_directory)
    )
    if layout.remapped:
        text = f"the guest cannot have the path {info.workspace_root}: nextest remaps to {layout.workspace}"
        emit(Note(text, "warning"))
    return layout


def _stage_files(
    workspace: Path, extracted: ExtractedArchive, share: Path, *, current: Phase, deadline: Deadline
) -> None:
    """Put the sources and what was built from them into the share."""
    staged = stage_sources(
        workspace,
        share / inbox.SOURCES,
        cache=private(cache_dir() / "sources"),
        excluded=(Path(extracted.info.target_directory),),
        progress=current,
        deadline=deadline,
    )
    _link_directory(extracted.target, share / inbox.TARGET)
    current.text = f"{staged.files} files, {staged.copied} of them new"


def _junit_of(workspace: Path, nextest_args: Sequence[str], environment: Mapping[str, str]) -> JunitLocation:
    profile = selected_profile(nextest_args, environment)
    return junit_location(workspace, profile, config_file=option_value(nextest_args, "--config-file"))


def _write_job(job: inbox.Job, run: RunDirectory) -> None:
    for name, text in inbox.render_job(job).items():
        (run.inbox / name).write_text(text)
    private(run.out / inbox.STORE)


def _write_nextest_files(
    run: RunDirectory,
    extracted: ExtractedArchive,
    layout: inbox.GuestLayout,
    *,
    tool: NextestTool | None,
    nextest_args: Sequence[str],
    color: bool,
) -> list[str]:
    """Write what nextest reads and return its command line in the guest."""
    host, guest = private(run.inbox / inbox.NEXTEST_FILES), inbox.IN / inbox.NEXTEST_FILES
    (host / _BINARIES_METADATA).write_text(guest_binaries_metadata(extracted, target_directory=layout.target))
    link_or_copy(extracted.cargo_metadata, host / _CARGO_METADATA)
    (host / _TOOL_CONFIG).write_text(tool_config(inbox.OUT / inbox.STORE))
    nextest = PurePosixPath("cargo-nextest")
    if tool:
        private(run.inbox / inbox.BINARIES)
        link_or_copy(tool.path.resolve(), run.inbox / inbox.BINARIES / inbox.CARRIED_NEXTEST.name)
        nextest = inbox.CARRIED_NEXTEST
    return guest_command(
        nextest_args,
        paths=GuestPaths(
            nextest=nextest,
            binaries_metadata=guest / _BINARIES_METADATA,
            cargo_metadata=guest / _CARGO_METADATA,
            tool_config=guest / _TOOL_CONFIG,
            workspace_remap=layout.workspace if layout.remapped else None,
            target_dir_remap=layout.target if layout.remapped else None,
        ),
        color=color,
    )


def _store_bind(location: JunitLocation, layout: inbox.GuestLayout) -> PurePosixPath | None:
    """Where the repository keeps nextest's store, if its own configuration says so: it beats a tool's."""
    return layout.workspace / location.store if location.store else None


def _link_directory(source: Path, destination: Path) -> None:
    """Hard links to a whole tree; `source` lies in the cache and is never written to."""
    for parent, directories, files in os.walk(source):
        there = destination / os.path.relpath(parent, source)
        there.mkdir(exist_ok=True)
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        for name in (*files, *links):
            link_or_copy(Path(parent) / name, there / name)


def sources_of(info: ArchiveInfo, *, given: Path, built_here: bool) -> Path:
    """Where on this host the sources of an archive are.

    For one that was built just now: where cargo found the workspace, which may lie above the directory it was called in.
    For one from elsewhere: the directory `given`, or the archive's own path where that is on this host.

    Raises UsageError where neither holds a Cargo.toml.
    """
    original = Path(info.workspace_root)
    if built_here:
        return original
    for directory in (given, original):
        if (directory / "Cargo.toml").is_file():
            return directory.resolve()
    raise UsageError(
        f"the sources of the archive are neither in {given.resolve()} nor in {original}",
        hint="name the workspace it was built from: `vmrunner test WORKSPACE --archive FILE`",
    )

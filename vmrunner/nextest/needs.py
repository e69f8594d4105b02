"""What the programs of an archive need of the system that runs them; read once, then kept beside the extraction."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vmrunner.errors import ArchiveError
from vmrunner.host.files import write_atomically
from vmrunner.host.nix_store import store_path_of
from vmrunner.nextest.elf import read_elf
from vmrunner.nextest.extract import ExtractedArchive
from vmrunner.nextest.metadata import ArchiveInfo

_CACHE = "needs-2.json"
_LIBRARY = re.compile(r".+\.so(\.[\w.]+)?")
_ORIGIN = re.compile(r"\$ORIGIN\b|\$\{ORIGIN\}")
# What these hold is among the libraries that a guest is said to have.
_DEFAULT_DIRECTORIES = {
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"),
    *("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib/x86_64-linux-gnu"),
}
_DIRECTORIES_OF_SYSTEMS = ("/lib", "/lib64", "/opt", "/usr")


@dataclass(frozen=True)
class FileNeeds:
    """What one file needs; `file` is its path below `target/`, of the first where many need the same.

    `search` are the directories, outside of the archive, that it has its libraries looked for in first: of the Nix
    store, of the workspace, or such as a guest may have.
    """

    file: str
    architecture: str
    interpreter: str | None
    glibc: str | None
    libraries: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArchiveNeeds:
    """What the programs of an archive need, those that need the same as one; and its own libraries, by name."""

    programs: tuple[FileNeeds, ...]
    libraries: Mapping[str, FileNeeds]


def read_needs(extracted: ExtractedArchive) -> ArchiveNeeds:
    """What the programs of `extracted` need; read once, then kept beside the extraction.

    Raises ArchiveError where a test binary is missing or is not a Linux program.
    """
    kept = extracted.directory / _CACHE
    if kept.is_file():
        return _from_json(json.loads(kept.read_text()))
    needs = _measure(extracted)
    write_atomically(kept, json.dumps(asdict(needs)))
    return needs


def _from_json(kept: dict[str, Any]) -> ArchiveNeeds:
    return ArchiveNeeds(
        tuple(_file_from_json(item) for item in kept["programs"]),
        {name: _file_from_json(item) for name, item in kept["libraries"].items()},
    )


def _file_from_json(item: dict[str, Any]) -> FileNeeds:
    """JSON has no tuples."""
    tuples = {name: tuple(item[name]) for name in ("libraries", "search")}
    return FileNeeds(**{**item, **tuples})


def _measure(extracted: ExtractedArchive) -> ArchiveNeeds:
    programs: dict[FileNeeds, FileNeeds] = {}
    for path in _programs(extracted):
        needs = _needs_of(path, extracted)
        if needs is not None:
            programs.setdefault(replace(needs, file=""), needs)
    return ArchiveNeeds(tuple(programs.values()), _libraries(extracted))


def _programs(extracted: ExtractedArchive) -> Iterator[Path]:
    """Test binaries, and the programs they start. Raises ArchiveError where a test binary is not there, or is none."""
    tests = tuple(binary.path for binary in extracted.info.binaries)
    for relative in dict.fromkeys((*tests, *extracted.info.programs)):
        path = extracted.target / relative
        if ".." in relative.parts or not path.resolve().is_relative_to(extracted.target.resolve()):
            raise ArchiveError(f"the archive names a program outside its target directory: {relative}")
        if relative in tests:
            if not path.is_file():
                raise ArchiveError(
                    f"the archive lacks its test binary `{relative}`",
                    hint="make the archive again with `cargo nextest archive`",
                )
            yield path
        elif path.is_file() and not _LIBRARY.fullmatch(path.name):
            yield path


def _libraries(extracted: ExtractedArchive) -> dict[str, FileNeeds]:
    """Every shared object that came along, under each of its names."""
    found = {}
    for directory, _, names in os.walk(extracted.target):
        for name in filter(_LIBRARY.fullmatch, names):
            path = Path(directory, name)
            inside = path.resolve().is_relative_to(extracted.target.resolve())
            needs = _needs_of(path, extracted) if inside and path.is_file() else None
            if needs is not None:
                found[name] = needs
    return found


def _needs_of(path: Path, extracted: ExtractedArchive) -> FileNeeds | None:
    name = PurePosixPath(path.relative_to(extracted.target))
    elf = read_elf(path)
    if elf is None:
        if any(name == binary.path for binary in extracted.info.binaries):
            raise ArchiveError(
                f"the test binary `{name}` is not a Linux program (ELF); it was built for {extracted.info.triple}",
                hint="build the tests for Linux, for example with `--target x86_64-unknown-linux-gnu`",
            )
        return None
    return FileNeeds(
        file=str(name),
        architecture=elf.architecture,
        interpreter=elf.interpreter,
        glibc=elf.glibc,
        libraries=elf.libraries,
        search=tuple(_outside_of_archive(elf.run_paths, name, extracted.info)),
    )


def _outside_of_archive(run_paths: tuple[str, ...], file: PurePosixPath, info: ArchiveInfo) -> Iterator[str]:
    """Those run paths that lead out of the archive to where the guest may have something."""
    origin = str(info.target_directory / file.parent)
    for run_path in run_paths:
        # A function, for a path is no pattern for what to put in.
        path = posixpath.normpath(_ORIGIN.sub(lambda _: origin, run_path))
        directory = PurePosixPath(path)
        if not directory.is_absolute():
            # From where nextest starts the program, in its package.
            yield path
            continue
        if any(directory.is_relative_to(own) for own in (info.target_directory, info.build_directory)):
            continue
        if path in _DEFAULT_DIRECTORIES:
            continue
        there = (info.workspace_root, *_DIRECTORIES_OF_SYSTEMS)
        if store_path_of(path) or any(directory.is_relative_to(place) for place in there):
            yield path

"""What a nextest archive says about itself, read from its first two members.

nextest writes `target/nextest/binaries-metadata.json` and `target/nextest/cargo-metadata.json` before anything
else (nextest-runner/src/reuse_build/archiver.rs), and every file below `target/`, whatever the build's own target
directory was called.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from tarfile import TarFile, TarInfo
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmrunner.errors import ArchiveError
from vmrunner.nextest.tar_stream import MAKE_ONE, open_tar_stream

BINARIES_METADATA = PurePosixPath("target/nextest/binaries-metadata.json")
CARGO_METADATA = PurePosixPath("target/nextest/cargo-metadata.json")

_LIMIT_BYTES = 256 * 2**20
_ARCHITECTURES = {"i586": "i686", "riscv64gc": "riscv64", "powerpc64le": "ppc64le", "arm64": "aarch64"}


@dataclass(frozen=True)
class TestBinary:
    """One program with tests in it; `path` is relative to the target directory."""

    __test__ = False

    id: str
    kind: str
    path: PurePosixPath
    platform: Literal["host", "target"]


@dataclass(frozen=True)
class ArchiveInfo:
    """Where an archive was built, for what, and what it holds.

    All directories are absolute paths of the build host. `member_directories` are the packages' own. `programs`
    are the binaries and dynamic libraries that tests may start or load, relative to the target directory.
    """

    workspace_root: PurePosixPath
    target_directory: PurePosixPath
    build_directory: PurePosixPath
    member_directories: tuple[PurePosixPath, ...]
    host_triple: str
    target_triples: tuple[str, ...]
    binaries: tuple[TestBinary, ...]
    programs: tuple[PurePosixPath, ...]

    @property
    def triple(self) -> str:
        """The triple that most tests were built for: the target's where there is one, else the build host's."""
        return (*self.target_triples, self.host_triple)[0]

    @property
    def architecture(self) -> str:
        """The processor of `triple`, as `uname -m` has it."""
        first = self.triple.split("-", 1)[0]
        return _ARCHITECTURES.get(first, first)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=lambda name: name.replace("_", "-"))


class _Platform(_Lenient):
    triple: str


class _PlatformWithLibdir(_Lenient):
    platform: _Platform


class _Platforms(_Lenient):
    host: _PlatformWithLibdir
    targets: list[_PlatformWithLibdir] = []


class _NonTestBinary(_Lenient):
    path: PurePosixPath


class _BuildMeta(_Lenient):
    target_directory: PurePosixPath
    non_test_binaries: dict[str, list[_NonTestBinary]] = {}
    platforms: _Platforms | None = None
    target_platforms: list[_Platform] = []


class _Binary(_Lenient):
    binary_id: str
    kind: str
    binary_path: PurePosixPath
    build_platform: Literal["host", "target"] = "target"


class _Binaries(_Lenient):
    rust_build_meta: _BuildMeta
    rust_binaries: dict[str, _Binary]


class _Package(BaseModel):
    id: str
    manifest_path: PurePosixPath


class _Cargo(BaseModel):
    workspace_root: PurePosixPath
    target_directory: PurePosixPath
    build_directory: PurePosixPath | None = None
    workspace_members: list[str] = Field(default_factory=list)
    packages: list[_Package] = Field(default_factory=list)


def read_archive(path: Path) -> ArchiveInfo:
    """Read what `path` says about itself, without unpacking it; takes milliseconds for an archive of any size.

    Raises ArchiveError where it is no archive of nextest, or cut off within its first members.
    """
    found: dict[str, bytes] = {}
    wanted = (str(BINARIES_METADATA), str(CARGO_METADATA))
    with open_tar_stream(path) as (tar, _):
        # Nothing behind these members is looked at: it may be long, or a bomb.
        for member in islice(tar, len(wanted)):
            if member.name not in wanted:
                break
            found[member.name] = _content(tar, member, path)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ArchiveError(
            f"{path} is not a nextest archive: it does not begin with {missing[0]}", hint=MAKE_ONE
        )
    return parse_metadata(found[wanted[0]], found[wanted[1]], source=path)


def _content(tar: TarFile, member: TarInfo, path: Path) -> bytes:
    file = tar.extractfile(member)
    if file is None or member.size > _LIMIT_BYTES:
        raise ArchiveError(f"{path} is not a nextest archive: its {member.name} is no ordinary file")
    return file.read()


def parse_metadata(binaries_json: bytes, cargo_json: bytes, *, source: Path) -> ArchiveInfo:
    """Put the two metadata files together; raises ArchiveError naming `source` where they are not nextest's."""
    try:
        binaries = _Binaries.model_validate_json(binaries_json)
        cargo = _Cargo.model_validate_json(cargo_json)
    except ValidationError as error:
        raise ArchiveError(
            f"the metadata in {source} is not what nextest writes: {error.errors()[0]['msg']}",
            hint=MAKE_ONE,
            details=str(error),
        ) from error
    meta = binaries.rust_build_meta
    build = cargo.build_directory or cargo.target_directory
    members = set(cargo.workspace_members)
    return ArchiveInfo(
        workspace_root=cargo.workspace_root,
        target_directory=cargo.target_directory,
        build_directory=build,
        member_directories=tuple(
            package.manifest_path.parent for package in cargo.packages if package.id in members
        ),
        host_triple=_host_triple(meta),
        target_triples=tuple(target.platform.triple for target in meta.platforms.targets)
        if meta.platforms
        else tuple(platform.triple for platform in meta.target_platforms),
        binaries=tuple(
            TestBinary(
                binary.binary_id,
                binary.kind,
                _below(binary.binary_path, (meta.target_directory, cargo.target_directory, build), source),
                binary.build_platform,
            )
            for binary in binaries.rust_binaries.values()
        ),
        programs=tuple(program.path for group in meta.non_test_binaries.values() for program in group),
    )


def _host_triple(meta: _BuildMeta) -> str:
    """Archives of nextest before 0.9.72 name only the target's platform."""
    if meta.platforms:
        return meta.platforms.host.platform.triple
    return meta.target_platforms[0].triple if meta.target_platforms else "unknown"


def _below(path: PurePosixPath, bases: tuple[PurePosixPath, ...], source: Path) -> PurePosixPath:
    for base in bases:
        if path.is_relative_to(base) and ".." not in path.parts:
            return path.relative_to(base)
    raise ArchiveError(f"the metadata in {source} names a test binary outside the target directory: {path}")

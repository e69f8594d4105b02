"""Whether a guest can run an archive, found out before it starts: processor, dynamic loader, glibc."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from vmrunner.errors import ArchiveError
from vmrunner.host.files import write_atomically
from vmrunner.nextest.elf import read_elf, version_key
from vmrunner.nextest.extract import ExtractedArchive

_CACHE = "needs-1.json"


@dataclass(frozen=True)
class ArchiveNeeds:
    """What all programs of an archive together need, each with the program that needs it (below `target/`)."""

    architectures: dict[str, str]
    interpreters: dict[str, str]
    glibc: str | None
    glibc_program: str


def check_archive(
    extracted: ExtractedArchive,
    *,
    guest_architecture: str,
    guest_glibc: str | None,
    guest_interpreters: Collection[str],
) -> ArchiveNeeds:
    """Raise ArchiveError where a guest with these abilities cannot run `extracted`; returns what it needs.

    `guest_architecture` is as `uname -m` has it, `guest_glibc` a version ("2.36") or None for a guest without
    glibc, `guest_interpreters` the paths of the dynamic loaders that it has.
    """
    needs = read_needs(extracted)
    for architecture, program in needs.architectures.items():
        if architecture != guest_architecture:
            raise ArchiveError(
                f"the archive is for {architecture}, but the guest is {guest_architecture}",
                hint=f"build it with `--target {guest_architecture}-unknown-linux-gnu`, or use an image for "
                f"{architecture}",
                details=f"program: {program}",
            )
    _check_glibc(needs, guest_glibc)
    for interpreter, program in needs.interpreters.items():
        if interpreter not in guest_interpreters:
            raise ArchiveError(
                f"`{program}` needs the dynamic loader {interpreter}, which the guest does not have",
                hint="build the tests where the loader has its usual path (not in a Nix shell or on musl), "
                "or use an image that has this one",
            )
    return needs


def _check_glibc(needs: ArchiveNeeds, guest_glibc: str | None) -> None:
    if needs.glibc is None or guest_glibc is None:
        return
    if version_key(needs.glibc) > version_key(guest_glibc):
        raise ArchiveError(
            f"`{needs.glibc_program}` needs glibc {needs.glibc}, but the guest has glibc {guest_glibc}",
            hint="use an image of a newer suite, build the tests on an older system, or build them for "
            "x86_64-unknown-linux-musl",
        )


def read_needs(extracted: ExtractedArchive) -> ArchiveNeeds:
    """What the programs of `extracted` need; read once, then kept beside the extraction.

    Raises ArchiveError where a test binary is missing or is not a Linux program.
    """
    kept = extracted.directory / _CACHE
    if kept.is_file():
        return ArchiveNeeds(**json.loads(kept.read_text()))
    needs = _measure(extracted)
    write_atomically(kept, json.dumps(asdict(needs)))
    return needs


def _measure(extracted: ExtractedArchive) -> ArchiveNeeds:
    architectures: dict[str, str] = {}
    interpreters: dict[str, str] = {}
    glibc, glibc_program = None, ""
    tests = {binary.path for binary in extracted.info.binaries}
    for path in _programs(extracted):
        name = PurePosixPath(path.relative_to(extracted.target))
        needs = read_elf(path)
        if needs is None:
            if name in tests:
                raise ArchiveError(
                    f"the test binary `{name}` is not a Linux program (ELF); it was built for {extracted.info.triple}",
                    hint="build the tests for Linux, for example with `--target x86_64-unknown-linux-gnu`",
                )
            continue
        architectures.setdefault(needs.architecture, str(name))
        if needs.interpreter:
            interpreters.setdefault(needs.interpreter, str(name))
        if needs.glibc and (glibc is None or version_key(needs.glibc) > version_key(glibc)):
            glibc, glibc_program = needs.glibc, str(name)
    return ArchiveNeeds(architectures, interpreters, glibc, glibc_program)


def _programs(extracted: ExtractedArchive) -> Iterator[Path]:
    """Test binaries, the programs they start, and every shared object that came along."""
    info = extracted.info
    for relative in (*(binary.path for binary in info.binaries), *info.programs):
        path = extracted.target / relative
        if ".." in relative.parts or not path.resolve().is_relative_to(extracted.target.resolve()):
            raise ArchiveError(f"the archive names a program outside its target directory: {relative}")
        if path.is_file():
            yield path
        elif any(relative == binary.path for binary in info.binaries):
            raise ArchiveError(
                f"the archive lacks its test binary `{relative}`",
                hint="make the archive again with `cargo nextest archive`",
            )
    for directory, _, names in os.walk(extracted.target):
        for name in names:
            path = Path(directory, name)
            if name.endswith(".so") and not path.is_symlink():
                yield path

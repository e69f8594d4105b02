"""What a program needs from the system that runs it, read from its ELF file."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

_MAGIC = b"\x7fELF"
_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_386": "i686",
    "EM_RISCV": "riscv64",
    "EM_ARM": "armv7l",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
}
_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")
_RELATIVE_RELOCATIONS = "GLIBC_ABI_DT_RELR"
"""A version that glibc has since 2.36 (its NEWS); the linker asks for it with `-z pack-relative-relocs`."""
_TEXT_OF_TAG = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
_WEAK = 0x2
"""VER_FLG_WEAK (elf.h): the dynamic loader only warns where such a version is missing."""


# What pyelftools raises, besides its own errors, where a damaged file has one kind of thing in the place of another.
_DAMAGED: Final = (
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    OverflowError,
    AssertionError,
)
_MOST_HEADERS: Final = 1 << 16
_VERSION_BYTES: Final = 16
"""The size of an Elf64_Verneed and of an Elf64_Vernaux (elf.h)."""


@dataclass(frozen=True)
class ElfNeeds:
    """What one program or library needs: the processor, its dynamic loader, the newest glibc it names, libraries.

    `interpreter` and `glibc` are None for a static program. `libraries` are the names of DT_NEEDED, `run_paths` the
    directories of DT_RUNPATH, else of DT_RPATH, as they are written (`$ORIGIN/../lib`).
    """

    architecture: str
    interpreter: str | None
    glibc: str | None
    libraries: tuple[str, ...] = ()
    run_paths: tuple[str, ...] = ()


def version_key(version: str) -> tuple[int, ...]:
    """`2.36` as (2, 36), so that versions compare by number."""
    return tuple(int(part) for part in version.split("."))


def read_elf(path: Path) -> ElfNeeds | None:
    """What the file at `path` needs, or None where it is not an ELF file, or a damaged one."""
    # 40 ms, and only needed where an archive is looked at for the first time.
    from elftools.common.exceptions import ELFError

    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
        file.seek(0)
        try:
            return _needs(file)
        except (ELFError, *_DAMAGED):
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:  # an offset that no file can have
                raise
            return None


def _needs(file: BinaryIO) -> ElfNeeds:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    elf = ELFFile(file)
    if elf.num_sections() > _MOST_HEADERS or elf.num_segments() > _MOST_HEADERS:
        raise ValueError("more headers than a linker writes")
    interpreters = (
        segment.get_interp_name() for segment in elf.iter_segments() if isinstance(segment, InterpSegment)
    )
    return ElfNeeds(
        _MACHINES.get(elf["e_machine"], str(elf["e_machine"])),
        next(interpreters, None),
        max(_glibc_versions(elf), key=version_key, default=None),
        *_libraries(elf),
    )


def _glibc_versions(elf: Any) -> Iterator[str]:  # noqa: ANN401 -- pyelftools has no types
    section = elf.get_section_by_name(".gnu.version_r")
    if section is None:
        return
    # Counts and offsets are the file's own, and may lead round in circles.
    left = section["sh_size"] // _VERSION_BYTES
    for _, versions in islice(section.iter_versions(), left):
        for version in islice(versions, left):
            left -= 1
            match = _GLIBC.fullmatch(version.name)
            if version["vna_flags"] & _WEAK:
                continue
            if match:
                yield match[1]
            elif version.name == _RELATIVE_RELOCATIONS:
                yield "2.36"
        if left <= 0:
            return


def _libraries(elf: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ANN401 -- pyelftools has no types
    """The needed libraries, and where they are looked for first (ld.so(8)): DT_RPATH counts without DT_RUNPATH only."""
    section = elf.get_section_by_name(".dynamic")
    found: dict[str, list[str]] = {"DT_NEEDED": [], "DT_RPATH": [], "DT_RUNPATH": []}
    for tag in section.iter_tags() if section else ():
        kind = tag.entry.d_tag
        if kind in found:
            found[kind].append(getattr(tag, _TEXT_OF_TAG[kind]))
    run_paths = ":".join(found["DT_RUNPATH"] or found["DT_RPATH"])
    return tuple(found["DT_NEEDED"]), tuple(filter(None, run_paths.split(":")))

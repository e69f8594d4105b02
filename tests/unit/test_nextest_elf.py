"""What a program needs, from its ELF file."""

from __future__ import annotations

from pathlib import Path

import pytest
from nextest_archives import EM_AARCH64, LOADER, elf_file

from vmrunner.nextest.elf import ElfNeeds, read_elf, version_key


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_dynamic_program_names_its_loader_and_the_newest_glibc(tmp_path: Path) -> None:
    path = written(tmp_path / "a", elf_file(glibc=["2.2.5", "2.34", "2.9"]))
    assert read_elf(path) == ElfNeeds("x86_64", LOADER, "2.34")


def test_a_static_program_needs_neither(tmp_path: Path) -> None:
    assert read_elf(written(tmp_path / "a", elf_file(interpreter=None))) == ElfNeeds("x86_64", None, None)


def test_the_processor_is_named_as_uname_names_it(tmp_path: Path) -> None:
    needs = read_elf(written(tmp_path / "a", elf_file(machine=EM_AARCH64)))
    assert needs is not None
    assert needs.architecture == "aarch64"


def test_relative_relocations_need_glibc_2_36(tmp_path: Path) -> None:
    needs = read_elf(written(tmp_path / "a", elf_file(glibc=["2.34"], names=["GLIBC_ABI_DT_RELR"])))
    assert needs is not None
    assert needs.glibc == "2.36"


def test_private_and_weak_versions_do_not_count(tmp_path: Path) -> None:
    content = elf_file(glibc=["2.17"], names=["GLIBC_PRIVATE", "GCC_3.0"], weak=["2.39"])
    needs = read_elf(written(tmp_path / "a", content))
    assert needs is not None
    assert needs.glibc == "2.17"


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(200), elf_file()[:100]]
)
def test_anything_else_is_none(tmp_path: Path, content: bytes) -> None:
    assert read_elf(written(tmp_path / "a", content)) is None


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0xFF])
def test_a_damaged_file_neither_breaks_nor_holds_up_whoever_reads_it(tmp_path: Path, value: int) -> None:
    """Each byte in turn is another one: counts of 4 thousand million, offsets that lead back, wrong kinds of sections."""
    content = elf_file(glibc=["2.17", "2.34"], libraries=["libc.so.6"], run_path="/opt/lib")
    for position in range(4, len(content)):
        damaged = content[:position] + bytes([value]) + content[position + 1 :]
        needs = read_elf(written(tmp_path / "a", damaged))
        assert needs is None or isinstance(needs, ElfNeeds)


def test_this_systems_shell_can_be_read() -> None:
    needs = read_elf(Path("/bin/sh"))
    assert needs is not None
    assert needs.interpreter is None or "libc.so.6" in needs.libraries or "musl" in needs.interpreter


def test_the_libraries_and_where_they_are_looked_for(tmp_path: Path) -> None:
    content = elf_file(libraries=["libpq.so.5", "libc.so.6"], run_path="$ORIGIN/../lib::/nix/store/a-b/lib")
    needs = read_elf(written(tmp_path / "a", content))
    assert needs is not None
    assert needs.libraries == ("libpq.so.5", "libc.so.6")
    assert needs.run_paths == ("$ORIGIN/../lib", "/nix/store/a-b/lib")


@pytest.mark.parametrize(("new", "counts"), [("/new", "/new"), (None, "/old")])
def test_the_old_kind_of_run_path_counts_without_the_new_one(
    tmp_path: Path, new: str | None, counts: str
) -> None:
    needs = read_elf(written(tmp_path / "a", elf_file(run_path=new, old_run_path="/old")))
    assert needs is not None
    assert needs.run_paths == (counts,)


def test_versions_compare_by_number() -> None:
    assert version_key("2.9") < version_key("2.36") < version_key("2.36.1")

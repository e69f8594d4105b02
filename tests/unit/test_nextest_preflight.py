"""Whether a guest can run an archive."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
from nextest_archives import (
    EM_AARCH64,
    LOADER,
    TEST_BINARY,
    binaries_metadata,
    demo_members,
    elf_file,
    file_member,
    metadata_members,
    special_member,
    write_archive,
)

from vmrunner.errors import ArchiveError
from vmrunner.events import silent
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.extract import ExtractedArchive, extract_archive
from vmrunner.nextest.preflight import ArchiveNeeds, check_archive, read_needs

Member = tuple[tarfile.TarInfo, bytes]


def extracted(directory: Path, members: list[Member]) -> ExtractedArchive:
    archive = write_archive(directory / "a.tar.zst", members)
    with extract_archive(archive, cache=directory, emit=silent, deadline=Deadline.after(60)) as result:
        return result


def with_test_binary(directory: Path, content: bytes) -> ExtractedArchive:
    return extracted(directory, [*metadata_members(), file_member(f"target/{TEST_BINARY}", content, 0o755)])


def check(
    archive: ExtractedArchive, glibc: str | None = "2.36", loaders: tuple[str, ...] = (LOADER,)
) -> ArchiveNeeds:
    return check_archive(archive, guest_architecture="x86_64", guest_glibc=glibc, guest_interpreters=loaders)


def refused(
    archive: ExtractedArchive, glibc: str | None = "2.36", loaders: tuple[str, ...] = (LOADER,)
) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        check(archive, glibc, loaders)
    assert caught.value.exit_code == 24
    assert caught.value.hint
    return caught.value


def test_an_archive_that_fits(tmp_path: Path) -> None:
    assert check(extracted(tmp_path, demo_members())) == ArchiveNeeds(
        architectures={"x86_64": TEST_BINARY},
        interpreters={LOADER: TEST_BINARY},
        glibc="2.34",
        glibc_program=TEST_BINARY,
    )


def test_a_newer_glibc_than_the_guest_has(tmp_path: Path) -> None:
    error = refused(with_test_binary(tmp_path, elf_file(glibc=["2.39"])))
    assert error.message == f"`{TEST_BINARY}` needs glibc 2.39, but the guest has glibc 2.36"
    assert error.hint
    assert "newer suite" in error.hint
    assert "musl" in error.hint


def test_a_library_that_needs_a_newer_glibc(tmp_path: Path) -> None:
    library = file_member("target/debug/build/x/out/libx.so", elf_file(interpreter=None, glibc=["2.38"]))
    assert "libx.so" in refused(extracted(tmp_path, [*demo_members(), library])).message


def test_a_program_that_tests_start_counts_too(tmp_path: Path) -> None:
    members = [
        *metadata_members(),
        file_member(f"target/{TEST_BINARY}", elf_file(glibc=["2.17"])),
        file_member("target/debug/demo", elf_file(glibc=["2.40"])),
    ]
    assert "`debug/demo` needs glibc 2.40" in refused(extracted(tmp_path, members)).message


def test_versions_are_numbers(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(glibc=["2.9"]))
    check(archive, glibc="2.10")
    refused(archive, glibc="2.8")


def test_another_processor(tmp_path: Path) -> None:
    error = refused(with_test_binary(tmp_path, elf_file(machine=EM_AARCH64)))
    assert error.message == "the archive is for aarch64, but the guest is x86_64"
    assert error.details
    assert TEST_BINARY in error.details


def test_a_loader_that_the_guest_lacks(tmp_path: Path) -> None:
    loader = "/nix/store/abc-glibc-2.40/lib/ld-linux-x86-64.so.2"
    error = refused(with_test_binary(tmp_path, elf_file(interpreter=loader)))
    assert loader in error.message
    assert TEST_BINARY in error.message


def test_static_programs_run_in_a_guest_without_glibc(tmp_path: Path) -> None:
    check(with_test_binary(tmp_path, elf_file(interpreter=None)), glibc=None, loaders=())


def test_a_guest_without_glibc_lacks_its_loader(tmp_path: Path) -> None:
    assert LOADER in refused(extracted(tmp_path, demo_members()), glibc=None, loaders=()).message


@pytest.mark.parametrize("content", [b"MZ a program for Windows", b"\xcf\xfa\xed\xfe for macOS", b""])
def test_a_test_binary_for_another_system(tmp_path: Path, content: bytes) -> None:
    error = refused(with_test_binary(tmp_path, content))
    assert "not a Linux program" in error.message
    assert "x86_64-unknown-linux-gnu" in error.message


def test_a_test_binary_that_is_missing(tmp_path: Path) -> None:
    assert "lacks its test binary" in refused(extracted(tmp_path, metadata_members())).message


def test_a_test_binary_behind_a_link_that_stays_is_fine(tmp_path: Path) -> None:
    members = [
        *metadata_members(),
        file_member("target/debug/deps/real", elf_file()),
        special_member(f"target/{TEST_BINARY}", tarfile.SYMTYPE, "real"),
    ]
    assert check(extracted(tmp_path, members)).architectures == {"x86_64": TEST_BINARY}


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd"])
def test_a_program_outside_the_archive_is_never_opened(tmp_path: Path, path: str) -> None:
    build_meta: dict[str, Any] = {"non-test-binaries": {"demo": [{"path": path}]}}
    members = metadata_members(binaries_metadata(**build_meta))
    members.append(file_member(f"target/{TEST_BINARY}", elf_file()))
    with pytest.raises(ArchiveError, match="outside its target directory"):
        read_needs(extracted(tmp_path, members))


def test_the_programs_are_read_once(tmp_path: Path) -> None:
    archive = extracted(tmp_path, demo_members())
    needs = check(archive)
    (archive.target / TEST_BINARY).write_bytes(b"changed")
    assert check(archive) == needs


def test_four_hundred_programs_take_no_time(tmp_path: Path) -> None:
    libraries = [
        file_member(f"target/debug/deps/lib{number}.so", elf_file(interpreter=None, glibc=["2.30"]))
        for number in range(400)
    ]
    assert check(extracted(tmp_path, [*demo_members(), *libraries])).glibc == "2.34"

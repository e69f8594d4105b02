"""What an archive says about itself, and what is said of a file that is none."""

from __future__ import annotations

import random
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import zstandard
from nextest_archives import (
    TRIPLE,
    binaries_metadata,
    cargo_metadata,
    demo_members,
    file_member,
    metadata_members,
    special_member,
    write_archive,
)

from vmrunner.errors import ArchiveError
from vmrunner.nextest.metadata import TestBinary, read_archive

FIFO = b"6"


def refused(path: Path) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        read_archive(path)
    assert caught.value.exit_code == 24
    assert str(path) in caught.value.message
    return caught.value


def test_all_that_a_run_needs_to_know(tmp_path: Path) -> None:
    info = read_archive(write_archive(tmp_path / "a.tar.zst", demo_members()))
    assert info.workspace_root == PurePosixPath("/build/ws")
    assert info.target_directory == info.build_directory == PurePosixPath("/build/ws/target")
    assert info.member_directories == (PurePosixPath("/build/ws/demo"),)
    assert (info.host_triple, info.target_triples, info.triple) == (TRIPLE, (), TRIPLE)
    assert info.architecture == "x86_64"
    assert info.binaries == (TestBinary("demo", "lib", PurePosixPath("debug/deps/demo-1"), "target"),)
    assert info.programs == (PurePosixPath("debug/demo"),)


def test_the_triple_of_the_target_counts(tmp_path: Path) -> None:
    platform = {"platform": {"triple": "riscv64gc-unknown-linux-gnu"}, "libdir": {}}
    host = {"platform": {"triple": TRIPLE}}
    binaries = binaries_metadata(platforms={"host": host, "targets": [platform]})
    info = read_archive(write_archive(tmp_path / "a.tar.zst", metadata_members(binaries)))
    assert (info.triple, info.architecture) == ("riscv64gc-unknown-linux-gnu", "riscv64")


def test_an_archive_of_an_older_nextest_names_platforms_otherwise(tmp_path: Path) -> None:
    old: dict[str, Any] = {"platforms": None, "target-platforms": [{"triple": TRIPLE}]}
    info = read_archive(write_archive(tmp_path / "a.tar.zst", metadata_members(binaries_metadata(**old))))
    assert info.triple == TRIPLE


def test_a_build_directory_of_its_own(tmp_path: Path) -> None:
    cargo = cargo_metadata(build_directory="/build/intermediate")
    binaries = binaries_metadata()
    binaries["rust-binaries"]["demo"]["binary-path"] = "/build/intermediate/debug/deps/demo-1"
    info = read_archive(write_archive(tmp_path / "a.tar.zst", metadata_members(binaries, cargo)))
    assert info.build_directory == PurePosixPath("/build/intermediate")
    assert info.binaries[0].path == PurePosixPath("debug/deps/demo-1")


def test_only_the_beginning_is_read(tmp_path: Path) -> None:
    large = file_member("target/x", random.Random(1).randbytes(1 << 20))
    path = write_archive(tmp_path / "a.tar.zst", [*metadata_members(), large])
    path.write_bytes(path.read_bytes()[: 1 << 19] + b"whatever follows")
    assert read_archive(path).binaries


@pytest.mark.parametrize("program", ["/elsewhere/demo-1", "/build/ws/target/../../demo-1"])
def test_a_test_binary_outside_the_target_directory(tmp_path: Path, program: str) -> None:
    binaries = binaries_metadata()
    binaries["rust-binaries"]["demo"]["binary-path"] = program
    error = refused(write_archive(tmp_path / "a.tar.zst", metadata_members(binaries)))
    assert "outside the target directory" in error.message


def test_no_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.tar.zst")
    assert "no archive at" in error.message
    assert error.hint
    assert "cargo nextest archive" in error.hint


def test_a_directory(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path).message


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.zst"
    path.touch()
    assert "it is empty" in refused(path).message


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"\x1f\x8b\x08rest", b"PK\x03\x04", b"\x28"])
def test_not_zstd(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(content)
    error = refused(path)
    assert "not compressed with zstd" in error.message
    assert error.hint


def test_zstd_but_not_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"some text " * 1000))
    assert "not a nextest archive" in refused(path).message


def test_damaged_zstd(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 100)
    assert "damaged" in refused(path).message


def test_a_tar_of_something_else(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.zst", [file_member("README.md", b"hello")])
    assert "does not begin with target/nextest/binaries-metadata.json" in refused(path).message


@pytest.mark.parametrize("kept", [4, 20, 100])
def test_cut_off(tmp_path: Path, kept: int) -> None:
    path = write_archive(tmp_path / "a.tar.zst", demo_members())
    path.write_bytes(path.read_bytes()[:kept])
    error = refused(path)
    assert "cut off" in error.message
    assert error.hint


def test_metadata_that_does_not_come_first(tmp_path: Path) -> None:
    members = [file_member("target/zeros", bytes(1 << 20)), *metadata_members()]
    assert "does not begin with" in refused(write_archive(tmp_path / "a.tar.zst", members)).message


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"rust-build-meta": 1}', b"\xff"])
def test_metadata_that_is_not_nextests(tmp_path: Path, content: bytes) -> None:
    members = metadata_members()
    members[0] = file_member("target/nextest/binaries-metadata.json", content)
    error = refused(write_archive(tmp_path / "a.tar.zst", members))
    assert "is not what nextest writes" in error.message
    assert error.details


def test_metadata_that_is_no_file(tmp_path: Path) -> None:
    members = [special_member("target/nextest/binaries-metadata.json", FIFO), *metadata_members()[1:]]
    assert "no ordinary file" in refused(write_archive(tmp_path / "a.tar.zst", members)).message

"""Bad input: the exit code of the table, a message that names the thing, a hint that says what to do; no boot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine, Finished
from nextest_archive_edits import edited, for_aarch64, needing_glibc_2_99

MYDNS = CRATES / "mydns"


def assert_never_booted(vmrunner: CommandLine) -> None:
    """The run has a report that says why there was no machine, and left nothing."""
    run = vmrunner.only_run
    assert run.report["outcome"] == "error"
    assert run.report["machine"] is None
    assert "start" not in run.phases
    vmrunner.assert_nothing_left(run)


def refused(finished: Finished, code: int) -> str:
    """The error's sentence, from a command that ended with `code` and advises something."""
    assert finished.code == code, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.hint
    return finished.message


def test_file_that_is_no_archive(vmrunner: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "notes.tar.zst"
    file.write_text("these are notes, not an archive\n")
    assert str(file) in refused(vmrunner.run("test", MYDNS, "--archive", file), 24)
    assert_never_booted(vmrunner)


def test_archive_that_is_not_there(vmrunner: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "missing.tar.zst"
    assert refused(vmrunner.run("test", MYDNS, "--archive", file), 24) == f"there is no archive at {file}"
    assert_never_booted(vmrunner)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated_archive(part: float, vmrunner: CommandLine, mydns_archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "truncated.tar.zst"
    content = mydns_archive.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    message = refused(vmrunner.run("test", MYDNS, "--archive", file), 24)
    assert str(file) in message
    assert "truncated" in message or "cut off" in message or "ends" in message
    assert_never_booted(vmrunner)


def test_archive_for_another_processor(vmrunner: CommandLine, mydns_archive: Path, tmp_path: Path) -> None:
    file = edited(mydns_archive, tmp_path / "aarch64.tar.zst", for_aarch64)
    message = refused(vmrunner.run("test", MYDNS, "--archive", file), 24)
    assert "aarch64" in message
    assert "x86_64" in message
    assert_never_booted(vmrunner)


def test_archive_that_needs_a_newer_glibc(
    vmrunner: CommandLine, mydns_archive: Path, tmp_path: Path, image: Path
) -> None:
    file = edited(mydns_archive, tmp_path / "glibc.tar.zst", needing_glibc_2_99)
    has = json.loads((image / "manifest.json").read_text())["glibc"]
    message = refused(vmrunner.run("test", MYDNS, "--archive", file), 24)
    assert "needs glibc 2.99" in message
    assert f"the guest has glibc {has}" in message
    assert_never_booted(vmrunner)


def test_archive_without_its_sources(vmrunner: CommandLine, mydns_archive: Path, tmp_path: Path) -> None:
    moved = edited(
        mydns_archive,
        tmp_path / "moved.tar.zst",
        lambda name, content: content.replace(str(MYDNS).encode(), b"/nowhere/mydns"),
    )
    (tmp_path / "empty").mkdir()
    message = refused(vmrunner.run("test", tmp_path / "empty", "--archive", moved), 2)
    assert str(tmp_path / "empty") in message
    assert "/nowhere/mydns" in message


def test_no_cargo_nextest(vmrunner: CommandLine, tmp_path: Path) -> None:
    """A fresh environment has vmrunner and what it depends on, but not the extra that brings cargo-nextest."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    libraries = sysconfig.get_path("purelib")
    (site / "libraries.pth").write_text(f"{libraries}\n{Path(__file__).resolve().parents[2]}\n")
    path = [place for place in os.environ["PATH"].split(":") if not (Path(place) / "cargo-nextest").exists()]
    fresh = replace(
        vmrunner.with_variables(PATH=":".join(path), CARGO_HOME=str(tmp_path / "cargo")),
        program=(str(environment / "bin" / "python"), "-m", "vmrunner"),
    )
    finished = fresh.run("test", MYDNS)
    assert refused(finished, 20) == "`cargo-nextest` is not installed"
    assert "vmrunner[nextest]" in finished.hint
    assert_never_booted(fresh)


def test_no_qemu(vmrunner: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    finished = vmrunner.with_variables(PATH=str(tmp_path / "bin")).run("test", MYDNS)
    assert refused(finished, 20) == "`qemu-system-x86_64` is not on PATH"
    assert "qemu-system-x86" in finished.hint
    assert_never_booted(vmrunner)


def test_no_cargo(vmrunner: CommandLine, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("qemu-system-x86_64", "qemu-img", "setpriv", "git"):
        where = shutil.which(name)
        assert where, name
        (programs / name).symlink_to(where)
    finished = vmrunner.with_variables(PATH=str(programs), CARGO=None).run("test", MYDNS)
    assert refused(finished, 20).startswith("`cargo` is not installed")
    assert "--archive" in finished.hint
    assert_never_booted(vmrunner)


def test_directory_that_is_no_workspace(vmrunner: CommandLine, tmp_path: Path) -> None:
    assert str(tmp_path) in refused(vmrunner.run("test", tmp_path), 2)
    assert_never_booted(vmrunner)


def test_mistyped_key(bare_vmrunner: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "vmrunner.yaml").write_text("image: debian\nmemroy: 4G\n")
    finished = bare_vmrunner.run("test", tmp_path)
    message = refused(finished, 2)
    assert message.startswith("vmrunner.yaml:2: ")
    assert "memroy" in message
    assert "did you mean 'memory'?" in finished.hint
    assert bare_vmrunner.runs == []


@pytest.mark.parametrize("size", ["12 parsecs", "0", "-1G", "1K", "99999999T"])
def test_impossible_size(size: str, bare_vmrunner: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "vmrunner.yaml").write_text(f"memory: {size}\n")
    finished = bare_vmrunner.run("test", tmp_path)
    assert finished.code == 2, finished.stderr
    assert finished.message.startswith("vmrunner.yaml:1: memory: ")
    flag = bare_vmrunner.run("test", CRATES / "verdicts", f"--memory={size}")
    assert flag.code == 2, flag.stderr
    assert flag.message.startswith("--memory: ")


def test_more_memory_than_the_host_has(vmrunner: CommandLine) -> None:
    message = refused(vmrunner.run("test", MYDNS, "--memory", "60T"), 2)
    assert message.startswith("`memory` is 60T, but this host has ")
    assert "GiB" in message
    assert_never_booted(vmrunner)


def copied_image(image: Path, destination: Path) -> Path:
    """An image directory of its own; the disk, which no test here changes, stays where it is."""
    destination.mkdir()
    for path in image.iterdir():
        if path.name == "root.img":
            (destination / path.name).symlink_to(path)
        elif not path.name.startswith("."):
            shutil.copy2(path, destination / path.name)
    return destination


def test_damaged_image(vmrunner: CommandLine, image: Path, tmp_path: Path) -> None:
    damaged = copied_image(image, tmp_path / "damaged")
    initrd = bytearray((damaged / "initrd").read_bytes())
    initrd[len(initrd) // 2] ^= 1
    (damaged / "initrd").write_bytes(initrd)
    finished = vmrunner.run("test", MYDNS, "--image", damaged)
    assert refused(finished, 21) == f"the digest of {damaged / 'initrd'} does not match the manifest"
    assert finished.stderr.count("sha256") == 2
    assert_never_booted(vmrunner)


def test_image_with_a_file_cut_short(vmrunner: CommandLine, image: Path, tmp_path: Path) -> None:
    damaged = copied_image(image, tmp_path / "damaged")
    os.truncate(damaged / "vmlinux", 1000)
    message = refused(vmrunner.run("test", MYDNS, "--image", damaged), 21)
    assert message.startswith(f"{damaged / 'vmlinux'} has 1000 bytes, the manifest says ")


def test_directory_that_is_no_image(vmrunner: CommandLine, tmp_path: Path) -> None:
    message = refused(vmrunner.run("test", MYDNS, "--image", tmp_path), 21)
    assert message == f"{tmp_path} is not an image: it has no manifest.json"
    assert_never_booted(vmrunner)


def test_image_that_is_not_there(vmrunner: CommandLine, tmp_path: Path) -> None:
    message = refused(vmrunner.run("test", MYDNS, "--image", tmp_path / "missing"), 21)
    assert message == f"there is no image directory {tmp_path / 'missing'}"


def test_verb_that_does_not_exist(bare_vmrunner: CommandLine) -> None:
    finished = bare_vmrunner.run("tset")
    assert finished.code == 2
    assert "Did you mean 'test'?" in finished.stderr


def test_reserved_argument(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("test", MYDNS, "--", "--archive-file", "x")
    assert refused(finished, 2) == "`--archive-file` is set by vmrunner and cannot be given"
    assert "--archive FILE" in finished.hint

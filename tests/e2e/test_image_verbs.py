"""`vmrunner image`: built once, shown, pruned; builds that break leave nothing that looks like an image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine

MISTYPED = "postgresqll"
STORE_BYTES = 4 << 30
"""More than a build is said to need, so that it starts."""


@pytest.fixture(scope="session")
def image(debian_image: Path) -> Path:
    """What is built, listed and shown here is the Debian image, whichever image is under test."""
    return debian_image


def in_store(command_line: CommandLine) -> list[Path]:
    """What lies in the image store and is not a lock."""
    store = command_line.cache_home / "vmrunner" / "images"
    return [path for path in store.iterdir() if path.name != ".locks"] if store.is_dir() else []


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A file system of its own at `directory`."""
    directory.mkdir()
    size = f"size={STORE_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "vmrunner-test", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_second_build_does_nothing(vmrunner: CommandLine, image: Path) -> None:
    manifest = (image / "manifest.json").stat()
    finished = vmrunner.run("image", "build", "--image", "debian")
    assert finished.code == 0, finished.stderr
    assert finished.stdout == f"{image}\n"
    assert "Building" not in finished.stderr
    assert (image / "manifest.json").stat() == manifest


def test_list_has_the_image(vmrunner: CommandLine, image: Path) -> None:
    listed = json.loads(vmrunner.run("image", "list", "--json").stdout)
    (entry,) = [entry for entry in listed if entry["digest"] == image.name]
    assert entry["name"] == "debian"
    assert entry["directory"] == str(image)
    assert entry["size"] > 100 << 20
    assert image.name[:12] in vmrunner.run("image", "list").stdout


def test_show_prints_the_manifest(vmrunner: CommandLine, image: Path) -> None:
    by_digest = json.loads(vmrunner.run("image", "show", image.name).stdout)
    by_settings = json.loads(vmrunner.run("image", "show").stdout)
    assert by_digest == by_settings
    assert by_digest["directory"] == str(image)
    assert by_digest["architecture"] == "x86_64"
    assert set(by_digest["files"]) >= {"vmlinux", "initrd", "root.img"}


def test_show_of_an_unknown_digest(vmrunner: CommandLine) -> None:
    finished = vmrunner.run("image", "show", "no-such-digest")
    assert finished.code == 21, finished.stderr
    assert "no-such-digest" in finished.message
    assert "image list" in finished.hint


def test_prune_only_says_what_it_would_remove(vmrunner: CommandLine, image: Path) -> None:
    finished = vmrunner.run("image", "prune", "--dry-run")
    assert finished.code == 0, finished.stderr
    assert "would free" in finished.stderr
    assert image.is_dir()
    recent = vmrunner.run("image", "prune", "--dry-run", "--unused-for", "720h")
    assert image.name[:12] not in recent.stdout


def test_files_are_private(image: Path) -> None:
    assert image.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in image.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_packages_make_another_image(vmrunner: CommandLine, image: Path) -> None:
    """Only planned: nothing is built."""
    plain = vmrunner.run("plan", CRATES / "mydns", "--image", "debian", "--json")
    assert plain.code == 0, plain.stderr
    assert json.loads(plain.stdout)["image"] == {"built": True, "directory": str(image)}
    more = vmrunner.run("plan", CRATES / "mydns", "--image", "debian", "--package", "nftables", "--json")
    assert more.code == 0, more.stderr
    planned = json.loads(more.stdout)["image"]
    assert planned["built"] is False
    assert planned["directory"] != str(image)


def test_package_that_debian_does_not_have(bare_vmrunner: CommandLine) -> None:
    finished = bare_vmrunner.run("image", "build", "--image", "debian", "--package", MISTYPED)
    assert finished.code == 21, finished.stderr
    assert finished.message.startswith(f"Debian has no package {MISTYPED}, which `packages:`")
    assert finished.hint
    assert in_store(bare_vmrunner) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_disk_too_small_for_a_build(bare_vmrunner: CommandLine) -> None:
    with small_disk(bare_vmrunner.cache_home):
        subprocess.run(["mount", "-o", "remount,size=16m", bare_vmrunner.cache_home], check=True)
        finished = bare_vmrunner.run("image", "build", "--image", "debian")
        assert finished.code == 21, finished.stderr
        assert "16 MiB free" in finished.message
        assert "XDG_CACHE_HOME" in finished.hint
        assert in_store(bare_vmrunner) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_disk_that_fills_up_during_a_build(bare_vmrunner: CommandLine) -> None:
    """The disk shrinks when the build has begun, so that it is full long before the image is there."""
    with small_disk(bare_vmrunner.cache_home):
        temporary = bare_vmrunner.cache_home / "temporary"
        temporary.mkdir()
        building = bare_vmrunner.with_variables(TMPDIR=str(temporary)).start(
            "image", "build", "--image", "debian"
        )
        building.wait_for("Building the Debian image")
        subprocess.run(["mount", "-o", "remount,size=64m", bare_vmrunner.cache_home], check=True)
        finished = building.finish()
        assert finished.code == 21, finished.stderr
        assert "disk" in finished.message
        assert "fill" in finished.message
        assert finished.hint
        assert in_store(bare_vmrunner) == []
        assert list(temporary.iterdir()) == []

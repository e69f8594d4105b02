"""nix/ built by real Nix on the stand-in for nixpkgs: an image that boots, an archive, and checks that pass and fail.

The system in the image is the Debian image's, with the root file system shrunk to what it holds and grown by the guest.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine
from nix_store import STAND_IN, NixStore, nix_store

__all__ = ["nix_store"]  # a fixture

HERE = Path(__file__).parent
NIX = HERE.parents[1] / "nix"

Build = Callable[[str, str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def build(nix_store: NixStore, debian_image: Path) -> Build:
    """Builds an attribute of nix_check.nix for a crate of the repository."""

    def run(attribute: str, crate: str) -> subprocess.CompletedProcess[str]:
        given = {"nix": NIX, "nixpkgs": STAND_IN, "crate": CRATES / crate}
        return nix_store.run(
            *("nix-build", HERE / "nix_check.nix", "--no-out-link", "-A", attribute),
            *(word for name, value in given.items() for word in ("--argstr", name, value)),
            environment={"NIXPKGS_STAND_IN_IMAGE": str(debian_image)},
        )

    return run


@pytest.fixture(scope="module")
def built(build: Build) -> Callable[[str, str], Path]:
    """The same, for what has to succeed: its store path."""

    def run(attribute: str, crate: str) -> Path:
        done = build(attribute, crate)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    return run


def test_an_image_and_an_archive_from_nix(built: Callable[[str, str], Path], vmrunner: CommandLine) -> None:
    image, archive = built("image", "mydns"), built("archive", "mydns")
    finished = vmrunner.run(
        *("test", CRATES / "mydns", "--image", image, "--archive", archive / "archive.tar.zst"),
    )
    assert finished.code == 0, finished.stderr
    assert "2 passed" in finished.stderr
    assert f"nixos {image.name[:12]}" in finished.stderr


def test_the_root_file_system_is_grown_to_the_disk(
    built: Callable[[str, str], Path], vmrunner: CommandLine
) -> None:
    image = built("image", "mydns")
    assert json.loads((image / "manifest.json").read_text())["root_disk_size"] < 1 << 30
    up = vmrunner.run("up", "grown", "--image", image, "--disk", "4G")
    assert up.code == 0, up.stderr
    try:
        size = vmrunner.run(
            "exec", "grown", "--", "findmnt", "--noheadings", "--bytes", "--output", "SIZE", "/"
        )
        assert int(size.stdout) > 3 << 30
    finally:
        vmrunner.run("rm", "--force", "grown")


def test_a_check_that_passes_leaves_the_reports(built: Callable[[str, str], Path]) -> None:
    result = built("check", "mydns")
    report = json.loads((result / "report.json").read_text())
    assert (report["outcome"], report["tests"]["passed"]) == ("passed", 2)
    assert report["machine"]["cpus"] == 1
    assert "<testsuite" in (result / "junit.xml").read_text()
    assert "Summary" in (result / "nextest.log").read_text()


def test_a_check_that_fails_shows_nextests_output(build: Build) -> None:
    failed = build("failing", "verdicts")
    assert failed.returncode == 100
    assert re.search(r"FAIL .* verdicts tests::failing", failed.stderr)
    assert "arithmetic holds" in failed.stderr
    assert "failed with exit code 100" in failed.stderr

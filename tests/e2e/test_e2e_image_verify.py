"""`vmrunner image verify` boots an image and finds out whether it keeps the guest contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from vmrunner.image.manifest import MANIFEST_NAME


def verified(vmrunner: CommandLine, image: Path) -> tuple[int, dict[str, Any]]:
    done = vmrunner.start("image", "verify", "--image", str(image), "--json").finish(seconds=120)
    return done.code, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def altered(image: Path, tmp_path: Path) -> Callable[..., Path]:
    """An image with the same files as the one under test, and a manifest with other fields."""

    def make(**fields: object) -> Path:
        directory = tmp_path / "altered"
        directory.mkdir()
        manifest = json.loads((image / MANIFEST_NAME).read_text())
        for name in manifest["files"]:
            (directory / name).symlink_to(image / name)
        (directory / MANIFEST_NAME).write_text(json.dumps(manifest | fields))
        return directory

    return make


def test_the_image_keeps_every_line_of_the_contract(vmrunner: CommandLine, image: Path) -> None:
    code, checks = verified(vmrunner, image)
    assert {name: check for name, check in checks.items() if check["status"] != "ok"} == {}
    assert code == 0
    assert "1 passed" in checks["test run"]["found"]


def test_what_the_manifest_promises_and_the_guest_lacks_is_told(
    vmrunner: CommandLine, altered: Callable[..., Path]
) -> None:
    image = altered(systemd_version="1", interpreters=["/lib64/ld-none.so.9"], architecture="riscv64")
    code, checks = verified(vmrunner, image)
    assert code == 21
    wrong = {name for name, check in checks.items() if check["status"] == "problem"}
    assert wrong == {"systemd is PID 1", "dynamic loaders", "architecture"}
    assert "manifest say systemd 1" in checks["systemd is PID 1"]["found"]
    assert checks["dynamic loaders"]["found"] == "missing: /lib64/ld-none.so.9"


def test_an_image_that_does_not_boot_is_told_with_what_it_said_last(
    vmrunner: CommandLine, altered: Callable[..., Path]
) -> None:
    code, checks = verified(vmrunner, altered(kernel_command_line="rdinit=/none console=ttyS0"))
    assert code == 21
    assert list(checks) == ["boots to SSH"]
    assert checks["boots to SSH"]["status"] == "problem"

"""`vmrunner image list` and `prune`: templates are shown beside their images, and what VMs need is kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sample_images import write_image
from sample_vms import use_home, write_vm

from vmrunner import cli
from vmrunner.host.paths import images_dir
from vmrunner.machine import templates
from vmrunner.machine.templates import TemplateRecord, finish_template


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path, monkeypatch)


def add_image(digest: str) -> Path:
    return write_image(images_dir() / digest, digest=digest).directory


def add_template(key: str, image: Path) -> None:
    record = TemplateRecord(
        key=key, image="debian", image_directory=image, accelerator="tcg", qemu_version="7.2.22", cpus=2,
        memory=1 << 30, public_key="ssh-ed25519 AAAA", guest_clock=time.time(), files={},
    )  # fmt: skip
    with templates.making(key) as directory:
        for name in ("ram", "state", "disk.qcow2", "overlay.qcow2", "login-key"):
            (directory / name).write_text("content")
        finish_template(directory, record)


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert cli.run(["image", "list", "--json"]) == 0
    document: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return document


def test_templates_are_listed_with_their_image(capsys: pytest.CaptureFixture[str]) -> None:
    add_template("k" * 64, add_image("a" * 64))
    (entry,) = listed(capsys)
    assert entry["digest"] == "a" * 64
    (template,) = entry["templates"]
    assert (template["key"], template["cpus"], template["memory"]) == ("k" * 64, 2, 1 << 30)
    assert cli.run(["image", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].split()[:5] == ["k" * 12, "debian", "a" * 12, "2", "1G"]


def test_templates_of_other_images_are_not_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_template("k" * 64, tmp_path / "elsewhere")
    add_template("d" * 64, tmp_path / "elsewhere")
    (templates.path_of("d" * 64) / "template.json").write_text("{")
    entries = {str(entry["directory"]): entry for entry in listed(capsys)}
    assert set(entries) == {str(tmp_path / "elsewhere"), "None"}
    assert all(len(entry["templates"]) == 1 for entry in entries.values())
    assert cli.run(["image", "list"]) == 0


def test_without_templates_the_list_is_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    add_image("a" * 64)
    assert cli.run(["image", "list"]) == 0
    assert "TEMPLATE" not in capsys.readouterr().out


def test_prune_keeps_what_a_vm_needs(capsys: pytest.CaptureFixture[str]) -> None:
    needed, unneeded = add_image("a" * 64), add_image("b" * 64)
    add_template("k" * 64, needed)
    add_template("l" * 64, unneeded)
    write_vm("db", image_directory=needed, template_key="k" * 64)
    expected = ["template llllllllllll", "debian bbbbbbbbbbbb"]
    assert cli.run(["image", "prune", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert cli.run(["image", "prune"]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert needed.is_dir()
    assert not unneeded.exists()
    assert [stored.key for stored in templates.list_templates()] == ["k" * 64]


def test_prune_keeps_what_was_used_lately(capsys: pytest.CaptureFixture[str]) -> None:
    add_template("k" * 64, add_image("a" * 64))
    assert cli.run(["image", "prune", "--unused-for", "1h"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.run(["image", "prune", "--unused-for", "soon"]) == 2

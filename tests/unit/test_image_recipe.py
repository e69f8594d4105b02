"""Recipes are read strictly; the digest changes with all that makes another image and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from sample_recipes import FIELDS

from vmrunner.errors import ImageBuildFailed, ImageNotFound, exit_code_of
from vmrunner.image import recipe as recipe_module
from vmrunner.image.recipe import (
    GuestFile,
    Recipe,
    check_package_names,
    debian_recipe,
    guest_files,
    image_digest,
    load_recipe,
)

FILES = [GuestFile("etc/hostname", 0o644, b"vm\n"), GuestFile("usr/bin/x", 0o755, b"#!/bin/sh\n")]


def _recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(FIELDS | changes)


def _digest(
    recipe: Recipe | None = None, files: list[GuestFile] = FILES, packages: tuple[str, ...] = ()
) -> str:
    return image_digest(recipe or _recipe(), files=files, packages=packages)


def test_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(FIELDS))
    assert load_recipe(path) == _recipe()
    assert _recipe().root_disk_size == 8 << 30


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match="there is no recipe") as caught:
        load_recipe(tmp_path / "none.yaml")
    assert exit_code_of(caught.value) == 21
    assert "install it again" in (caught.value.hint or "")


def test_recipe_that_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [")
    with pytest.raises(ImageNotFound, match="is not YAML"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "blue"}, "colour"),
        ({"root_disk_size": "big"}, "root_disk_size"),
        ({"sources": []}, "sources"),
    ],
)
def test_bad_entry_is_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(FIELDS | changes))
    with pytest.raises(ImageNotFound, match=named):
        load_recipe(path)


def test_digest_is_a_directory_name() -> None:
    assert len(_digest()) == 64 and _digest().isalnum()


def test_digest_is_the_same_each_time() -> None:
    assert _digest() == _digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": "bookworm"},
        {"packages": ["systemd-sysv", "udev"]},
        {"kernel_command_line": ["root=/dev/vda", "quiet"]},
        {"mask": ["getty.target"]},
        {"finish": "true"},
        {"root_disk_size": "16G"},
    ],
)
def test_changed_recipe_changes_the_digest(changes: dict[str, Any]) -> None:
    assert _digest(_recipe(**changes)) != _digest()


@pytest.mark.parametrize(
    "file",
    [
        GuestFile("etc/hostname", 0o644, b"other\n"),
        GuestFile("etc/hostname", 0o755, b"vm\n"),
        GuestFile("etc/hostnames", 0o644, b"vm\n"),
    ],
)
def test_changed_guest_file_changes_the_digest(file: GuestFile) -> None:
    assert _digest(files=[file, FILES[1]]) != _digest()


def test_packages_count_as_a_set() -> None:
    assert _digest(packages=("b", "a", "a")) == _digest(packages=("a", "b"))
    assert _digest(packages=("a",)) != _digest()


@pytest.mark.parametrize("constant", ["BUILDER_VERSION", "FORMAT_VERSION", "ARCHITECTURE"])
def test_builder_and_format_are_part_of_the_digest(monkeypatch: pytest.MonkeyPatch, constant: str) -> None:
    before = _digest()
    monkeypatch.setattr(recipe_module, constant, "other")
    assert _digest() != before


def test_guest_files_have_plain_modes_and_an_order(tmp_path: Path) -> None:
    (tmp_path / "etc/deep").mkdir(parents=True)
    for name, mode in (("etc/z", 0o600), ("etc/deep/a", 0o777), ("etc/b", 0o664)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    assert guest_files(tmp_path) == [
        GuestFile("etc/b", 0o644, b"etc/b"),
        GuestFile("etc/deep/a", 0o755, b"etc/deep/a"),
        GuestFile("etc/z", 0o644, b"etc/z"),
    ]


@pytest.mark.parametrize("name", ["postgresql", "g++", "libc6", "python3.13", "a0"])
def test_package_names(name: str) -> None:
    check_package_names((name,))


@pytest.mark.parametrize("name", ["", "--force", "a,b", "a b", "?essential", "~i", "../x", "Upper", "a=1"])
def test_what_apt_would_take_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(ImageBuildFailed, match="is not the name of a Debian package") as caught:
        check_package_names(("udev", name))
    assert exit_code_of(caught.value) == 21
    assert "packages:" in (caught.value.hint or "")


def test_own_recipe_names_each_thing_once() -> None:
    recipe = debian_recipe()
    for names in (recipe.packages, recipe.mask, recipe.mask_generators, recipe.initrd_modules):
        assert len(names) == len(set(names))
    wanted = {unit for units in (*recipe.enable.values(), *recipe.unwant.values()) for unit in units}
    assert not wanted & set(recipe.mask)


def test_own_recipe_keeps_a_panic_visible_and_the_root_writable() -> None:
    line = debian_recipe().kernel_command_line
    assert {"root=/dev/vda", "rw", "console=ttyS0"} <= set(line)
    assert "quiet" not in line
    assert not [word for word in line if word.startswith(("mitigations", "rodata", "panic"))]

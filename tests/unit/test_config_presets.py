"""`size`: settings by one name, and which of them are stronger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmrunner.config.load import Loaded, load_config
from vmrunner.config.schema import json_schema
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError

OWN = """
cpus: 3
sizes:
  ci: {cpus: 8, memory: 6G, disk-limits: {iops: 500}, kernel: ./bzImage}
  small: {memory: 512M}
"""


def load(directory: Path, text: str = "", **flags: str) -> Loaded:
    (directory / "vmrunner.yaml").write_text(text)
    return load_config(directory=directory, file=None, environ={}, flags=flags)


@pytest.mark.parametrize(
    ("name", "cpus", "memory", "disk"),
    [("small", 1, "1G", "8G"), ("medium", 2, "2G", "8G"), ("large", 4, "8G", "32G")],
)
def test_sizes_that_there_are(tmp_path: Path, name: str, cpus: int, memory: str, disk: str) -> None:
    loaded = load(tmp_path, f"size: {name}")
    assert (loaded.config.cpus, loaded.config.memory, loaded.config.disk) == (
        cpus, Size.parse(memory), Size.parse(disk),
    )  # fmt: skip
    assert loaded.sources["memory"] == f"size {name}"


def test_the_size_of_this_host(tmp_path: Path) -> None:
    config = load(tmp_path, size="host").config
    assert config.cpus == len(os.sched_getaffinity(0))
    assert config.memory % (256 << 20) == 0
    assert 0 < config.memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_what_is_set_by_itself_is_stronger_than_a_size(tmp_path: Path) -> None:
    loaded = load(tmp_path, OWN, size="ci")
    assert (loaded.config.cpus, loaded.sources["cpus"]) == (3, "vmrunner.yaml:2")
    assert (loaded.config.memory, loaded.sources["memory"]) == (Size.parse("6G"), "vmrunner.yaml:4")
    assert loaded.config.disk_limits == {"iops": "500"}
    assert loaded.config.kernel == tmp_path / "bzImage"


def test_a_flags_size_is_stronger_than_a_files(tmp_path: Path) -> None:
    assert load(tmp_path, "size: large", size="small").config.memory == Size.parse("1G")


def test_a_projects_own_size_has_its_way(tmp_path: Path) -> None:
    loaded = load(tmp_path, OWN, size="small")
    assert loaded.config.memory == Size.parse("512M")


def test_sizes_that_nobody_names_do_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, OWN).config.memory == Size.parse("2G")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size: huge", "vmrunner.yaml:1: there is no size 'huge' .want small, medium, large, host."),
        ("sizes: {a: {size: small}}", "a size within a size"),
        ("sizes: {a: {cpu: 1}}", "vmrunner.yaml:1: unknown key 'cpu'"),
        ("size: a\nsizes: {a: {cpus: many}}", "vmrunner.yaml:2: cpus: not a whole number: 'many'"),
        ("sizes: [a]", "sizes: not a mapping"),
        ("sizes: {a: 1}", "sizes: a: not a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, text)


def test_an_editor_knows_them() -> None:
    sizes = json_schema()["properties"]["sizes"]["additionalProperties"]["properties"]
    assert "memory" in sizes
    assert "size" not in sizes

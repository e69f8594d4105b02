"""What this computer has, and what a container's limits leave of it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from vmrunner.host import facts
from vmrunner.host.facts import CgroupMemory, cgroup_memory, read_facts

GIB = 2**30


def group(root: Path, name: str, **files: str) -> None:
    """One cgroup with its `memory.*` files."""
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    for suffix, text in files.items():
        (directory / f"memory.{suffix}").write_text(text)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text("4:memory:/elsewhere\n0::/jobs/one\n")
    return path


def test_facts_of_this_computer_are_plausible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = read_facts()
    assert found.cpus == len(os.sched_getaffinity(0))
    assert 0 < found.memory_available <= found.memory_total
    assert found.cache_free > 0
    assert found.state_free > 0
    assert found.distribution


def test_containers_limit_bounds_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(facts, "cgroup_memory", lambda: CgroupMemory(limit=64 * 2**20, unused=2**20))
    found = read_facts()
    assert (found.memory_total, found.memory_available) == (64 * 2**20, 2**20)


def test_limit_of_the_own_group(tmp_path: Path, own: Path) -> None:
    group(
        tmp_path, "jobs/one", max=f"{4 * GIB}\n", current=f"{GIB}\n", stat="anon 5\ninactive_file 1048576\n"
    )
    assert cgroup_memory(own, tmp_path) == CgroupMemory(4 * GIB, 3 * GIB + 2**20)


def test_tighter_limit_of_a_group_above_counts(tmp_path: Path, own: Path) -> None:
    group(tmp_path, "jobs", max=f"{2 * GIB}", current=f"{GIB}")
    group(tmp_path, "jobs/one", max=f"{4 * GIB}", current=f"{GIB}")
    assert cgroup_memory(own, tmp_path) == CgroupMemory(2 * GIB, GIB)


def test_no_limit_anywhere(tmp_path: Path, own: Path) -> None:
    group(tmp_path, "jobs/one", max="max\n", current="5\n")
    assert cgroup_memory(own, tmp_path) is None


def test_more_used_than_allowed_leaves_nothing_not_less(tmp_path: Path, own: Path) -> None:
    group(tmp_path, "jobs/one", max="100", current="150")
    assert cgroup_memory(own, tmp_path) == CgroupMemory(100, 0)


def test_limit_without_usage_files_counts_in_full(tmp_path: Path, own: Path) -> None:
    group(tmp_path, "jobs/one", max="100")
    assert cgroup_memory(own, tmp_path) == CgroupMemory(100, 100)


def test_kernel_without_cgroup_v2(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert cgroup_memory(own, tmp_path) is None
    own.write_text("4:memory:/elsewhere\n")
    assert cgroup_memory(own, tmp_path) is None


def test_unknown_distribution_is_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert read_facts().distribution == "Linux"

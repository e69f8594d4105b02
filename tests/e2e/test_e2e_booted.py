"""Settings of a machine that boots: huge pages, another kernel and initrd, and what else the guest can see of them.

One boot serves them all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from long_lived import LongLivedVm
from shared_vm import shared_vm

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
PAGES = 160


def count(name: str) -> int:
    return int((POOL / name).read_text())


@pytest.fixture(scope="module")
def huge_pages() -> Iterator[None]:
    """Huge pages for a machine, where this host can give some."""
    try:
        before = count("nr_hugepages")
        (POOL / "nr_hugepages").write_text(str(before + PAGES))
    except OSError as error:
        pytest.skip(f"no huge pages can be reserved here: {error}")
    try:
        if count("free_hugepages") < PAGES:
            pytest.skip("this host has no room for huge pages")
        yield
    finally:
        (POOL / "nr_hugepages").write_text(str(before))


@pytest.fixture(scope="module")
def vm(image: Path, tmp_path_factory: pytest.TempPathFactory, huge_pages: None) -> Iterator[LongLivedVm]:
    """A VM with its memory on huge pages, and the image's kernel and initrd from elsewhere."""
    boot = tmp_path_factory.mktemp("boot")
    for name, copy in (("vmlinux", "another-kernel"), ("initrd", "another-initrd")):
        shutil.copyfile(image / name, boot / copy)
    flags = (
        "--memory", f"{2 * PAGES}M", "--hugepages", "2M", "--prealloc", "on", "--rng", "off",
        "--kernel", str(boot / "another-kernel"), "--initrd", str(boot / "another-initrd"),
        "--cpu-feature", "avx2=off", "--disk-cache", "none", "--disk-aio", "native", "--disk-iothread", "on",
    )  # fmt: skip
    with shared_vm("huge", image=image, state=tmp_path_factory.mktemp("state"), flags=flags) as made:
        yield made


def test_memory_is_huge_pages_of_this_host(vm: LongLivedVm) -> None:
    assert vm.listing["start"] == "booted"
    assert count("free_hugepages") <= count("nr_hugepages") - PAGES
    total = int(vm.shell("awk '/MemTotal/ { print $2 }' /proc/meminfo"))
    assert 0.8 * (2 * PAGES << 10) < total <= 2 * PAGES << 10


def test_more_of_them_than_there_are_is_refused_before_anything_starts(vm: LongLivedVm) -> None:
    refused = vm.vmrunner.run("up", "another", "--memory", "64G", "--hugepages", "2M")
    assert (refused.code, "32768 huge pages of 2M" in refused.message) == (2, True)
    assert "nr_hugepages" in refused.hint
    assert refused.seconds < 5


def test_another_kernel_and_initrd(vm: LongLivedVm) -> None:
    words = psutil.Process(vm.pid).cmdline()
    assert words[words.index("-kernel") + 1].endswith("/another-kernel")
    assert words[words.index("-initrd") + 1].endswith("/another-initrd")
    assert vm.shell("cat /proc/sys/kernel/ostype") == "Linux\n"


def test_no_random_number_generator(vm: LongLivedVm) -> None:
    assert "virtio_rng" not in vm.shell("cat /sys/class/misc/hw_random/rng_available 2>/dev/null || :")


def test_a_feature_of_the_processor_is_off(vm: LongLivedVm) -> None:
    flags = vm.shell("grep -m1 ^flags /proc/cpuinfo").split()
    assert "avx" in flags or "sse2" in flags
    assert "avx2" not in flags


def test_what_a_file_of_memory_cannot_do_is_said(vm: LongLivedVm) -> None:
    refused = vm.vmrunner.run("up", "another", "--hugepages", "2M", "--memory", "256M", "--start", "restored")
    assert (refused.code, "a template's memory is a file" in refused.message) == (2, True)
    assert json.loads(vm.vmrunner.run("ps", "--json").stdout)[0]["name"] == "huge"

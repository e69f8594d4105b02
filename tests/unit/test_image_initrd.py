"""The initrd holds busybox, the modules in loading order, and a script that names the right things."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from vmrunner.errors import ImageBuildFailed, exit_code_of
from vmrunner.image.initrd import kernel_release, make_initrd, module_order

RELEASE = "6.12.0-test"
DEPENDENCIES = """\
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/lib/crc16.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/fs/jbd2/jbd2.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/misc/pvpanic/pvpanic-pci.ko:
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    modules = tmp_path / "usr/lib/modules" / RELEASE
    for line in DEPENDENCIES.splitlines():
        path = modules / line.partition(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"module {path.name}".encode()
        path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
    (modules / "modules.dep").write_text(DEPENDENCIES)
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/busybox").write_bytes(b"\x7fELF busybox")
    return tmp_path


def _make(tree: Path, *modules: str) -> bytes:
    return make_initrd(tree, modules=modules, root_device="/dev/vda", root_type="ext4", init="/sbin/the-init")


def _unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a `newc` archive: name -> (mode, content)."""
    entries: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, archive[start : start + size])
        at = (start + size + 3) & ~3


def test_dependencies_come_before_what_needs_them(tree: Path) -> None:
    names = [path.name for path in module_order(tree, ["ext4", "virtio_net"])]
    assert names.index("failover.ko.xz") < names.index("net_failover.ko.xz") < names.index("virtio_net.ko.xz")
    assert names.index("jbd2.ko.xz") < names.index("ext4.ko.xz")
    assert len(names) == len(set(names)) == 7


def test_dash_and_underscore_are_the_same(tree: Path) -> None:
    assert [path.name for path in module_order(tree, ["pvpanic_pci"])] == ["pvpanic-pci.ko"]


def test_builtin_module_needs_no_file(tree: Path) -> None:
    assert module_order(tree, ["virtio_pci"]) == []


def test_module_that_does_not_exist_is_named(tree: Path) -> None:
    with pytest.raises(ImageBuildFailed, match=f"kernel {RELEASE} has no module ext5") as caught:
        module_order(tree, ["ext5"])
    assert exit_code_of(caught.value) == 21


def test_modules_are_unpacked_and_listed_in_order(tree: Path) -> None:
    entries = _unpacked(_make(tree, "ext4", "pvpanic_pci"))
    directory = f"lib/modules/{RELEASE}"
    assert entries[f"{directory}/ext4.ko"][1] == b"module ext4.ko.xz"
    assert entries[f"{directory}/pvpanic_pci.ko"][1] == b"module pvpanic-pci.ko"
    listed = entries[f"{directory}/modules.dep"][1].decode().splitlines()
    assert listed[-2:] == ["ext4.ko:", "pvpanic_pci.ko:"]
    assert b"modprobe -a jbd2 mbcache crc16 ext4 pvpanic_pci\n" in entries["init"][1]


def test_script_mounts_the_root_and_starts_its_init(tree: Path) -> None:
    mode, script = _unpacked(_make(tree, "ext4"))["init"]
    assert mode == 0o100755
    assert b"mount -t ext4 -o rw /dev/vda /root" in script
    assert script.endswith(b"switch_root /root /sbin/the-init\n")


def test_first_console_is_there_before_devtmpfs(tree: Path) -> None:
    mode, _ = _unpacked(_make(tree))["dev/console"]
    assert mode == 0o020600


def test_directories_come_before_their_files(tree: Path) -> None:
    names = list(_unpacked(_make(tree, "ext4")))
    assert names.index("lib/modules") < names.index(f"lib/modules/{RELEASE}/ext4.ko")


def test_archive_is_the_same_each_time(tree: Path) -> None:
    assert _make(tree, "ext4", "virtio_net") == _make(tree, "ext4", "virtio_net")


def test_missing_busybox_says_which_package(tree: Path) -> None:
    (tree / "usr/bin/busybox").unlink()
    with pytest.raises(ImageBuildFailed, match="no /usr/bin/busybox") as caught:
        _make(tree)
    assert "busybox-static" in (caught.value.hint or "")


def test_release_of_the_one_kernel(tree: Path) -> None:
    assert kernel_release(tree) == RELEASE


def test_two_kernels_are_refused_by_name(tree: Path) -> None:
    (tree / "usr/lib/modules/6.1.0").mkdir()
    with pytest.raises(ImageBuildFailed, match=f"found 6.1.0, {RELEASE}"):
        kernel_release(tree)


def test_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(ImageBuildFailed, match="found none"):
        kernel_release(tmp_path)

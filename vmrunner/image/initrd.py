"""A small initrd: a static busybox, the modules for the root disk, and a script that mounts it.

It is not compressed, and neither are its modules: unpacking costs more than reading where the processor is
emulated.
"""

from __future__ import annotations

import gzip
import lzma
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zstandard

from vmrunner.errors import ImageBuildFailed

# One modprobe for all modules: each process more costs 20 ms where the processor is emulated. What cannot be
# loaded is said on the console; whether it was needed shows at the mount.
_INIT: Final = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox modprobe -a {modules}
if ! /bin/busybox mount -t {root_type} -o rw {root_device} /root; then
  echo "vmrunner: the root file system on {root_device} cannot be mounted"
  exec /bin/busybox poweroff -f
fi
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root {init}
"""


@dataclass
class _Archive:
    """A cpio archive in the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    data: bytearray = field(default_factory=bytearray)
    entries: int = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """Append one entry; names have no leading slash."""
        self.entries += 1
        encoded = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, filesize, major, minor, rmajor, rminor, namesize, check
        fields = (self.entries, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08x" % number for number in fields) + encoded
        self._align()
        self.data += content
        self._align()

    def finished(self) -> bytes:
        """The archive with its end mark."""
        self.add("TRAILER!!!", 0)
        return bytes(self.data)

    def _align(self) -> None:
        self.data += bytes(-len(self.data) % 4)


def make_initrd(tree: Path, *, modules: Iterable[str], root_device: str, root_type: str, init: str) -> bytes:
    """The initrd for the system in `tree`, whose kernel modules and busybox it takes.

    `modules` are names; what they depend on comes with them. Raises ImageBuildFailed where one does not
    exist.
    """
    busybox = tree / "usr/bin/busybox"
    if not busybox.is_file():
        raise ImageBuildFailed("the system has no /usr/bin/busybox for the initrd", hint="add busybox-static")
    directory = f"lib/modules/{kernel_release(tree)}"
    files = {_module_name(path.name): path for path in module_order(tree, modules)}
    script = _INIT.format(modules=" ".join(files), root_type=root_type, root_device=root_device, init=init)
    archive = _Archive()
    for name in ("bin", "dev", "root", "lib", "lib/modules", directory):
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, script.encode())
    for name, path in files.items():
        archive.add(f"{directory}/{name}.ko", stat.S_IFREG | 0o644, _uncompressed(path))
    # They are named in the right order, so none needs another to be found first.
    dependencies = "".join(f"{name}.ko:\n" for name in files)
    archive.add(f"{directory}/modules.dep", stat.S_IFREG | 0o644, dependencies.encode())
    return archive.finished()


def kernel_release(tree: Path) -> str:
    """The release of the one kernel in `tree`.

    Raises ImageBuildFailed where there is none, or more than one.
    """
    releases = sorted(path.name for path in (tree / "usr/lib/modules").glob("*") if path.is_dir())
    if len(releases) != 1:
        found = ", ".join(releases) or "none"
        raise ImageBuildFailed(
            f"the image must have exactly one kernel, found {found}",
            hint="a package in `packages:` brings another kernel, or the recipe has none",
        )
    return releases[0]


def module_order(tree: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of the modules `wanted` and of all they depend on, each after its dependencies.

    A module that is built into the kernel needs no file and is left out.
    """
    directory = tree / "usr/lib/modules" / kernel_release(tree)
    files: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        file, _, dependencies = line.partition(":")
        files[_module_name(file)] = file
        # depmod writes them so that the last must be loaded first.
        needs[file] = dependencies.split()[::-1]
    builtin = {_module_name(line) for line in (directory / "modules.builtin").read_text().splitlines()}
    ordered: dict[str, None] = {}
    for name in wanted:
        if _module_name(name) in builtin:
            continue
        if _module_name(name) not in files:
            raise ImageBuildFailed(f"the kernel {directory.name} has no module {name}")
        file = files[_module_name(name)]
        ordered.update(dict.fromkeys((*needs[file], file)))
    return [directory / file for file in ordered]


def _module_name(path: str) -> str:
    """`kernel/fs/ext4/ext4.ko.xz` -> `ext4`; - and _ mean the same in a module's name."""
    return Path(path).name.partition(".")[0].replace("-", "_")


def _uncompressed(path: Path) -> bytes:
    content = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        case _:
            return content

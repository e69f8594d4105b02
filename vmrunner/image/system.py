"""What the manifest says about a Debian system, read from its unpacked tree."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from vmrunner.errors import ImageBuildFailed

# Where the psABI documents and distributions put the dynamic loaders of x86-64 programs.
_LOADERS: Final = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux.so.2", "/lib/ld-musl-x86_64.so.1")
# What Debian's dynamic loader searches without being told (`ld.so --help`).
_LIBRARY_DIRECTORIES: Final = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
_LIBRARY: Final = re.compile(r".+\.so(\.[\w.]+)?")
# The first bytes of an ELF file (elf(5)): e_ident begins with magic and class; e_machine is at 18.
_ELF_HEADER: Final = struct.Struct("<4sB13xH")
_X86_64_ELF: Final = (b"\x7fELF", 2, 62)
_MOST_LINKS: Final = 40
_UPSTREAM: Final = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")


def installed_packages(tree: Path) -> dict[str, str]:
    """Installed packages and their versions, from dpkg's database."""
    found = {}
    for paragraph in (tree / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line)
        )
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields["Version"]
    return found


def version_of(package: str, installed: dict[str, str]) -> str:
    """The upstream version of an installed package: `2.41-12` -> `2.41`."""
    match = _UPSTREAM.match(installed.get(package, ""))
    if match is None:
        raise ImageBuildFailed(f"the system has no {package}", hint="the recipe's packages must bring it")
    return match[1]


def interpreters(tree: Path) -> tuple[str, ...]:
    """The dynamic loaders that exist in the system, as programs name them."""
    return tuple(loader for loader in _LOADERS if _resolved(tree, loader))


def libraries(tree: Path) -> tuple[str, ...]:
    """The names under which the system's default dynamic loader finds x86-64 libraries, sorted."""
    found = set()
    for name in (*_LIBRARY_DIRECTORIES, *_configured_directories(tree)):
        directory = _resolved(tree, name)
        if directory is None or not directory.is_dir():
            continue
        within = directory.relative_to(tree)
        for entry in directory.iterdir():
            if _LIBRARY.fullmatch(entry.name) and _is_library(_resolved(tree, str(within / entry.name))):
                found.add(entry.name)
    return tuple(sorted(found))


def _configured_directories(tree: Path, configuration: str = "/etc/ld.so.conf") -> Iterator[str]:
    """The directories that ldconfig(8) is told of, those of included files among them."""
    path = _resolved(tree, configuration)
    for line in path.read_text(errors="replace").splitlines() if path else ():
        word, _, rest = line.partition("#")[0].strip().partition(" ")
        if word == "include":
            pattern = Path("/etc", rest.strip())
            directory = _resolved(tree, str(pattern.parent))
            for included in sorted(directory.glob(pattern.name)) if directory else ():
                yield from _configured_directories(tree, str(pattern.parent / included.name))
        elif word.startswith("/"):
            yield word


def _is_library(path: Path | None) -> bool:
    if path is None or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(_ELF_HEADER.size)
    if len(header) < _ELF_HEADER.size:
        return False
    magic, elf_class, machine = _ELF_HEADER.unpack(header)
    return (magic, elf_class, machine) == _X86_64_ELF


def _resolved(tree: Path, path: str) -> Path | None:
    """The file of the tree that `path` is in the system, or None; no link is followed out of the tree."""
    wanted = [*reversed(PurePosixPath(path).parts[path.startswith("/") :])]
    reached, links = tree, 0
    while wanted:
        part = wanted.pop()
        if part == "..":
            reached = reached.parent if reached != tree else tree
            continue
        reached /= part
        if reached.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                return None
            target = PurePosixPath(reached.readlink())
            wanted += reversed(target.parts[target.is_absolute() :])
            reached = tree if target.is_absolute() else reached.parent
    return reached if reached.exists() else None

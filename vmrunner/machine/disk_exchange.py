"""Other contents for the files of a VM's disks, all of them or none: what was there is kept until all went well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmrunner.host.sparse_copy import copy_sparse


@dataclass(frozen=True)
class DiskExchange:
    """`files` are pairs: the file of a disk, which need not be there, and what it is to be a copy of.

    First `prepare`, which takes the time and may fail; then `do` and either `keep` or `undo`.
    """

    files: Sequence[tuple[Path, Path]]

    def prepare(self) -> None:
        """Copy what is to come beside what is there. Raises OSError."""
        for disk, source in self.files:
            _new(disk).unlink(missing_ok=True)
            copy_sparse(source, _new(disk))

    def do(self) -> None:
        """Put the copies in their places."""
        for disk, _ in self.files:
            if disk.exists():
                disk.rename(_old(disk))
            _new(disk).rename(disk)

    def keep(self) -> None:
        """Remove what was there before."""
        for disk, _ in self.files:
            _old(disk).unlink(missing_ok=True)

    def undo(self) -> None:
        """Put what was there before in its place again."""
        for disk, _ in self.files:
            if _old(disk).exists():
                _old(disk).replace(disk)
            else:
                disk.unlink(missing_ok=True)


def _new(disk: Path) -> Path:
    return disk.with_suffix(".new.qcow2")


def _old(disk: Path) -> Path:
    return disk.with_suffix(".old.qcow2")

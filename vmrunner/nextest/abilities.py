"""What a guest offers to programs, as far as it decides whether they can run there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# What glibc consists of (its shlib-versions), so that every guest with its loader has them.
_OF_GLIBC = frozenset({
    "libBrokenLocale.so.1", "libanl.so.1", "libc.so.6", "libc_malloc_debug.so.0", "libdl.so.2", "libm.so.6",
    "libmvec.so.1", "libnsl.so.1", "libnss_compat.so.2", "libnss_dns.so.2", "libnss_files.so.2", "libpthread.so.0",
    "libresolv.so.2", "librt.so.1", "libthread_db.so.1", "libutil.so.1",
})  # fmt: skip


@dataclass(frozen=True)
class GuestAbilities:
    """What a guest of the image `image` has.

    `architecture` is as `uname -m` has it, `glibc` a version ("2.36") or None for a guest without glibc,
    `interpreters` the paths of its dynamic loaders, `libraries` the names that they find (empty: not known),
    `store_paths` its own `/nix/store/<hash>-<name>`, `nextest` the version that will run there. `environment` is what the
    tests are given.
    """

    image: str
    architecture: str
    glibc: str | None
    interpreters: frozenset[str]
    libraries: frozenset[str]
    store_paths: frozenset[str] = frozenset()
    nextest: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def finds(self, library: str, *, interpreter: str | None) -> bool:
        """Whether the guest's own `interpreter` finds `library` where it looks without being told, or may find it."""
        if not self.libraries or "LD_LIBRARY_PATH" in self.environment:
            return True
        if interpreter and library == PurePosixPath(interpreter).name:
            return True
        return library in self.libraries or (self.glibc is not None and library in _OF_GLIBC)

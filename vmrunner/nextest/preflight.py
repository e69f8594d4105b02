"""Whether a guest can run an archive, found out before anything is started: processor, loader, libraries, glibc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmrunner.errors import ArchiveError
from vmrunner.host.nix_store import HostStore, store_path_of
from vmrunner.nextest import unfit
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.elf import version_key
from vmrunner.nextest.extract import ExtractedArchive
from vmrunner.nextest.library_search import LibrarySearch
from vmrunner.nextest.needs import ArchiveNeeds, FileNeeds, read_needs


@dataclass(frozen=True)
class StoreNeeds:
    """The store paths that a fitting archive needs and only this host has, each with the program that needs it first."""

    from_host: Mapping[str, str] = field(default_factory=dict)


def check_archive(
    extracted: ExtractedArchive, *, guest: GuestAbilities, store: HostStore | None
) -> StoreNeeds:
    """Raise ArchiveError where `guest` cannot run `extracted`, were it given what it lacks from this host's `store`.

    The result is what it would have to be given.
    """
    needs = read_needs(extracted)
    _check_architecture(needs, guest)
    _check_interpreters(needs, guest)
    search = LibrarySearch(needs, guest, store)
    search.look_for_all()
    if search.nowhere:
        raise unfit.store_paths_nowhere(search.nowhere, guest, has_store=store is not None)
    _check_glibc(needs, guest)
    if search.missing:
        raise unfit.libraries_missing(search.missing, guest)
    return StoreNeeds(search.from_host)


def _check_architecture(needs: ArchiveNeeds, guest: GuestAbilities) -> None:
    for file in needs.programs:
        if file.architecture != guest.architecture:
            raise ArchiveError(
                f"the archive is for {file.architecture}, but the guest is {guest.architecture}",
                hint=f"build it with `--target {guest.architecture}-unknown-linux-gnu`, or use an image for "
                f"{file.architecture}",
                details=f"program: {file.file}",
            )


def _check_interpreters(needs: ArchiveNeeds, guest: GuestAbilities) -> None:
    """Loaders in the store are for the search, which knows where store paths are."""
    for program in needs.programs:
        loader = program.interpreter
        if loader and not store_path_of(loader) and loader not in guest.interpreters:
            raise unfit.interpreter_missing(program.file, loader, guest)


def _check_glibc(needs: ArchiveNeeds, guest: GuestAbilities) -> None:
    """A program whose loader is in the store has its glibc from there, and so have libraries that only such load."""
    at_home = [item for item in needs.programs if not (item.interpreter and store_path_of(item.interpreter))]
    files: list[FileNeeds] = [*at_home, *(needs.libraries.values() if at_home else ())]
    newest = max(
        (file for file in files if file.glibc), key=lambda file: version_key(file.glibc or "0"), default=None
    )
    if newest is None or newest.glibc is None or guest.glibc is None:
        return
    if version_key(newest.glibc) > version_key(guest.glibc):
        raise ArchiveError(
            f"`{newest.file}` needs glibc {newest.glibc}, but the guest has glibc {guest.glibc}",
            hint="use an image of a newer suite, build the tests on an older system, or build them for "
            "x86_64-unknown-linux-musl",
        )

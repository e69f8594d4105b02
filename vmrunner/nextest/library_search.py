"""Where each program of an archive finds its libraries in a guest, as the dynamic loader looks for them (ld.so(8)).

nextest puts the directories of the archive that hold libraries into `LD_LIBRARY_PATH`, so whatever came along is found.
What is found in the Nix store finds its own libraries there: a store path never comes without what it refers to.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from vmrunner.host.nix_store import HostStore, store_path_of
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.needs import ArchiveNeeds, FileNeeds


@dataclass
class LibrarySearch:
    """What came of the search in one guest, with this host's `store` within reach.

    `from_host` are the store paths that only the host has, `nowhere` those that neither has, each with the first file
    that needs it; `missing` are libraries that nobody has, each with all files that need it.
    """

    needs: ArchiveNeeds
    guest: GuestAbilities
    store: HostStore | None
    from_host: dict[str, str] = field(default_factory=dict)
    nowhere: dict[str, str] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)

    def look_for_all(self) -> None:
        """Look for the loader and the libraries of every program."""
        for program in self.needs.programs:
            if program.interpreter:
                self._look_in_store(program.interpreter, program)
            for file, library in self._needed_by(program):
                self._look_for(library, file, program)

    def _needed_by(self, program: FileNeeds) -> Iterator[tuple[FileNeeds, str]]:
        """The libraries that are not in the archive, each with the file that asks for it: the program, or one of ours."""
        waiting, seen = [program], set()
        while waiting:
            file = waiting.pop()
            for library in file.libraries:
                if library in seen:
                    continue
                seen.add(library)
                ours = self.needs.libraries.get(library)
                if ours:
                    waiting.append(ours)
                else:
                    yield file, library

    def _look_for(self, library: str, file: FileNeeds, program: FileNeeds) -> None:
        if "/" in library:
            # Opened by that path, so it is looked for nowhere else.
            self._look_in_store(library, file)
        else:
            self._search_for(library, file, program)

    def _search_for(self, library: str, file: FileNeeds, program: FileNeeds) -> None:
        absent, perhaps = [], False
        for directory in dict.fromkeys((*file.search, *program.search)):
            store_path = store_path_of(directory)
            if store_path is None:
                perhaps = True  # only the guest knows what it has there
            elif self._has(store_path, posixpath.join(directory, library)):
                self._note_in_store(store_path, file)
                return
            elif not self._has(store_path, store_path):
                absent.append(store_path)
        if perhaps or self._loader_finds(library, program):
            return
        for store_path in absent:
            self.nowhere.setdefault(store_path, file.file)
        if not absent:
            self.missing.setdefault(library, []).append(file.file)

    def _loader_finds(self, library: str, program: FileNeeds) -> bool:
        """Whether the program's loader finds it where it always looks: a store's loader only looks beside itself."""
        loader = program.interpreter
        store_path = store_path_of(loader) if loader else None
        if loader is None or store_path is None:
            return self.guest.finds(library, interpreter=loader)
        if "LD_LIBRARY_PATH" in self.guest.environment:
            return True
        beside = posixpath.join(posixpath.dirname(loader), library)
        # Where the loader itself is nowhere, that is what is said.
        return store_path in self.nowhere or self._has(store_path, beside)

    def _has(self, store_path: str, path: str) -> bool:
        """Whether host or guest has `path` in the store; what only the guest has cannot be looked into."""
        if self.store and self.store.has(store_path):
            return self.store.has(path)
        return store_path in self.guest.store_paths

    def _look_in_store(self, path: str, file: FileNeeds) -> None:
        """Look for a file by its path; one outside the store is not for this search to judge."""
        store_path = store_path_of(path)
        if store_path is None:
            return
        if self._has(store_path, path):
            self._note_in_store(store_path, file)
        else:
            self.nowhere.setdefault(store_path, file.file)

    def _note_in_store(self, store_path: str, file: FileNeeds) -> None:
        if store_path not in self.guest.store_paths:
            self.from_host.setdefault(store_path, file.file)

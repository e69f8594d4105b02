"""Stage a workspace's sources: a private copy that editing during a run does not change, cheap the second time.

A tree in the cache follows the workspace file by file (size, mtime and mode decide), and each run gets hard links to it.
A file that changed becomes a new file in the cache, so links that an earlier run holds keep their content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import CommandFailed, HostError, UsageError
from vmrunner.events import Phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import locked, remove_tree, write_atomically
from vmrunner.host.process import run_command

# A git hook that calls us has these set, and they would beat the directory that is asked about.
_GIT = (
    "env",
    *(f"--unset={name}" for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")),
    "git",
)
_PROGRESS_EVERY = 200
Fingerprint = tuple[int, int, int]


@dataclass(frozen=True)
class Staged:
    """How many files a staged tree holds, and how many of them had to be copied."""

    files: int
    copied: int


def stage_sources(
    workspace: Path,
    destination: Path,
    *,
    cache: Path,
    excluded: tuple[Path, ...],
    progress: Phase,
    deadline: Deadline,
) -> Staged:
    """Make `destination` a snapshot of `workspace`, without the `excluded` directories (the target directory).

    Raises UsageError where the workspace cannot be read, HostError where the disk is full.
    """
    slot = cache / hashlib.sha256(os.fsencode(workspace)).hexdigest()[:32]
    slot.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(slot / "lock", deadline=deadline):
            names = list_sources(workspace, excluded=excluded, deadline=deadline)
            copied = _follow(workspace, slot, names, progress)
            _link_tree(slot / "tree", destination, names)
    except OSError as error:
        raise HostError(
            f"the sources in {workspace} could not be staged: {error.strerror}",
            hint="free some disk space" if error.errno == 28 else None,
            details=str(error),
        ) from error
    return Staged(len(names), copied)


def list_sources(workspace: Path, *, excluded: tuple[Path, ...], deadline: Deadline) -> list[str]:
    """Names below `workspace` that belong to its sources: files and symbolic links, sorted.

    In a git work tree: what is tracked, and what is untracked but not ignored, submodules too. Elsewhere, and where
    git ignores the whole workspace: everything.
    """
    if not workspace.is_dir():
        raise UsageError(f"the workspace {workspace} is not a directory")
    skipped = {os.path.relpath(path, workspace) for path in excluded} | {"target"}
    listed = set(_names_by_git(workspace, deadline)) if _in_git(workspace, deadline) else set()
    names = listed or set(_names_by_walk(workspace, skipped))
    return sorted(name for name in names if not _is_below(name, skipped))


def _is_below(name: str, directories: set[str]) -> bool:
    return any(name == directory or name.startswith(f"{directory}/") for directory in directories)


def _in_git(directory: Path, deadline: Deadline) -> bool:
    try:
        result = run_command(
            [*_GIT, "-C", directory, "rev-parse", "--is-inside-work-tree"],
            deadline=deadline.within(60),
            check=False,
        )
    except HostError:
        return False
    return result.code == 0 and result.stdout.strip() == "true"


def _names_by_git(directory: Path, deadline: Deadline) -> Iterator[str]:
    argv: list[str | Path] = [
        *_GIT,
        "-C",
        directory,
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]
    try:
        listing = run_command(argv, deadline=deadline.within(120)).stdout_bytes
    except CommandFailed as error:
        raise UsageError(f"git could not list the files of {directory}", details=error.details) from error
    for raw in listing.split(b"\0"):
        name = os.fsdecode(raw).rstrip("/")
        path = directory / name
        if name and path.is_dir() and not path.is_symlink():
            yield from (f"{name}/{inner}" for inner in _names_of_nested(path, deadline))
        elif name:
            yield name


def _names_of_nested(directory: Path, deadline: Deadline) -> Iterator[str]:
    """A submodule, or another repository inside this one: git names only its directory."""
    return (
        _names_by_git(directory, deadline)
        if (directory / ".git").exists()
        else _names_by_walk(directory, set())
    )


def _names_by_walk(directory: Path, skipped: set[str]) -> Iterator[str]:
    for parent, directories, files in os.walk(directory, onerror=_raise_unless_gone):
        relative = os.path.relpath(parent, directory)
        prefix = "" if relative == "." else f"{relative}/"
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        directories[:] = [
            name
            for name in directories
            if name not in links and name != ".git" and f"{prefix}{name}" not in skipped
        ]
        yield from (f"{prefix}{name}" for name in (*files, *links))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _follow(workspace: Path, slot: Path, names: list[str], progress: Phase) -> int:
    """Bring the cached tree up to date and leave in `names` what it holds now; the number of files copied.

    The index is away while the tree changes: after an interruption all is copied anew, into an empty tree.
    """
    tree, index_file = slot / "tree", slot / "index.json"
    index = _load_index(index_file)
    fresh = _fingerprints(workspace, names)
    gone = [name for name in index if name not in fresh]
    new = [
        name for name, found in fresh.items() if index.get(name) != found or not os.path.lexists(tree / name)
    ]
    if gone or new:
        index_file.unlink(missing_ok=True)
        if not index:
            remove_tree(tree)
        _remove(tree, gone)
        for number, name in enumerate(new):
            if not _copy(workspace / name, tree, name, slot / "incoming"):
                del fresh[name]
                _remove(tree, [name])
            if number % _PROGRESS_EVERY == 0:
                progress.progress(number, len(new), "files")
        write_atomically(index_file, json.dumps(fresh))
    names[:] = fresh
    return len(new)


def _load_index(path: Path) -> dict[str, Fingerprint]:
    """What the cached tree holds; an index that cannot be read means that every file is copied anew."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return {
            name: (size, mtime, mode) for name, (size, mtime, mode) in json.loads(path.read_text()).items()
        }
    return {}


def _fingerprints(workspace: Path, names: list[str]) -> dict[str, Fingerprint]:
    """What tells a changed file from an unchanged one, for every name that is a file or a link of the workspace's own.

    git still lists what it tracks below a directory that has since become a symbolic link; that is not ours.
    """
    own = {"": True}

    def is_own(directory: str) -> bool:
        if directory not in own:
            parent = directory.rpartition("/")[0]
            own[directory] = is_own(parent) and not (workspace / directory).is_symlink()
        return own[directory]

    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = (workspace / name).lstat()
            is_content = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            if is_content and is_own(name.rpartition("/")[0]):
                found[name] = (status.st_size, status.st_mtime_ns, status.st_mode)
    return found


def _copy(source: Path, tree: Path, name: str, temporary: Path) -> bool:
    """Copy one file or link into the tree as a new file; False where it is gone by now."""
    temporary.unlink(missing_ok=True)
    try:
        shutil.copy2(source, temporary, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not temporary.is_symlink():
        # The guest's root reads as this user; a set-id bit means nothing to a test and much to this host.
        temporary.chmod((stat.S_IMODE(temporary.stat().st_mode) & 0o777) | stat.S_IRUSR)
    target = tree / name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(target)
    return True


def _remove(tree: Path, names: list[str]) -> None:
    """Remove files, and the directories that are empty then, so that nothing is in the way of what comes."""
    for name in names:
        (tree / name).unlink(missing_ok=True)
    parents = {parent for name in names for parent in (tree / name).parents if parent.is_relative_to(tree)}
    for parent in sorted(parents - {tree}, reverse=True):
        with contextlib.suppress(OSError):  # it still holds something
            parent.rmdir()


def _link_tree(tree: Path, destination: Path, names: list[str]) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    made: set[str] = set()
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in made:
            (destination / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        link_or_copy(tree / name, destination / name)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where both are on one file system, else a copy; a symbolic link is copied as one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {1, 18, 31}:  # EPERM, EXDEV, EMLINK
            raise
        shutil.copy2(source, target, follow_symlinks=False)

"""Staging real trees: what belongs to the sources, and that a snapshot stays what it was."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from vmrunner.errors import HostError, RunTimeout, UsageError, exit_code_of
from vmrunner.events import Event, Phase, PhaseProgress, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import locked
from vmrunner.run.sources import Staged, link_or_copy, list_sources, stage_sources

LATER_NS = 2_000_000_000_000_000_000


class Tree:
    """A workspace to stage, a cache, and one snapshot after the other."""

    def __init__(self, base: Path, name: str = "ws") -> None:
        self.base = base
        self.root = base / name
        self.cache = base / "cache"
        self.events: list[Event] = []
        self.snapshots = 0
        self.root.mkdir()

    def write(self, name: str, text: str = "x", mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def git(self, *words: str, at: str = ".") -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]
        command: list[str | Path] = [
            "git",
            "-C",
            self.root / at,
            *identity,
            "-c",
            "init.defaultBranch=main",
            *words,
        ]
        subprocess.run(command, check=True, capture_output=True)

    def commit(self, at: str = ".") -> None:
        self.git("add", "-A", at=at)
        self.git("commit", "-qm", "x", at=at)

    def names(self, *excluded: Path) -> list[str]:
        return list_sources(self.root, excluded=excluded, deadline=Deadline.after(10))

    def stage(self, *excluded: Path) -> tuple[Path, Staged]:
        self.snapshots += 1
        snapshot = self.base / f"snapshot-{self.snapshots}"
        staged = stage_sources(
            self.root, snapshot, cache=self.cache, excluded=excluded,
            progress=Phase("stage", self.events.append), deadline=Deadline.after(10),
        )  # fmt: skip
        return snapshot, staged

    @property
    def index(self) -> Path:
        (found,) = self.cache.glob("*/index.json")
        return found


@pytest.fixture
def plain(tmp_path: Path) -> Tree:
    """A workspace outside git."""
    return Tree(tmp_path)


@pytest.fixture
def repository(tmp_path: Path) -> Tree:
    """An empty git repository."""
    tree = Tree(tmp_path)
    tree.git("init", "-q")
    return tree


def contents(root: Path) -> dict[str, str]:
    """Every file below `root` but git's own, by its relative name; a link as `-> where`."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file()) and ".git" not in path.relative_to(root).parts
    }


# What belongs to the sources


def test_tracked_and_untracked_files_count_and_ignored_ones_do_not(repository: Tree) -> None:
    repository.write(".gitignore", "*.log\n/secret/\n")
    repository.write("src/lib.rs")
    repository.commit()
    repository.write("src/new.rs")
    repository.write("debug.log")
    repository.write("secret/key")
    assert repository.names() == [".gitignore", "src/lib.rs", "src/new.rs"]


def test_dotfiles_count_and_git_itself_does_not(repository: Tree) -> None:
    repository.write(".config/nextest.toml")
    repository.write(".cargo/config.toml")
    repository.commit()
    assert repository.names() == [".cargo/config.toml", ".config/nextest.toml"]


def test_a_tracked_file_stays_though_it_is_ignored(repository: Tree) -> None:
    repository.write("a.log")
    repository.commit()
    repository.write(".gitignore", "*.log\n")
    assert repository.names() == [".gitignore", "a.log"]


def test_a_file_that_is_deleted_but_still_tracked_is_left_out(repository: Tree) -> None:
    repository.write("a")
    repository.write("b")
    repository.commit()
    (repository.root / "a").unlink()
    snapshot, staged = repository.stage()
    assert contents(snapshot) == {"b": "x"}
    assert staged == Staged(files=1, copied=1)


def test_target_never_counts_even_where_it_is_tracked(repository: Tree) -> None:
    repository.write("target/debug/x")
    repository.write("src/target/keep.rs")
    repository.write("targets/keep")
    repository.commit()
    assert repository.names() == ["src/target/keep.rs", "targets/keep"]


def test_a_target_directory_of_another_name_does_not_count_either(plain: Tree) -> None:
    plain.write("build/out/x")
    plain.write("build/keep")
    plain.write("target/x")
    plain.write("a")
    assert plain.names(plain.root / "build/out") == ["a", "build/keep"]
    assert plain.names(Path("/somewhere/else")) == ["a", "build/keep", "build/out/x"]


def test_a_submodule_counts_with_its_own_rules(repository: Tree, tmp_path: Path) -> None:
    library = Tree(tmp_path, "library")
    library.git("init", "-q")
    library.write(".gitignore", "ignored\n")
    library.write("src/lib.rs", "library")
    library.commit()
    repository.git("submodule", "--quiet", "add", str(library.root), "vendor/lib")
    repository.commit()
    repository.write("vendor/lib/ignored")
    repository.write("vendor/lib/new")
    assert repository.names() == [
        ".gitmodules", "vendor/lib/.gitignore", "vendor/lib/new", "vendor/lib/src/lib.rs",
    ]  # fmt: skip
    snapshot, _ = repository.stage()
    assert (snapshot / "vendor/lib/src/lib.rs").read_text() == "library"


def test_a_submodule_that_is_not_checked_out_is_empty(repository: Tree, tmp_path: Path) -> None:
    library = Tree(tmp_path, "library")
    library.git("init", "-q")
    library.write("a")
    library.commit()
    repository.git("submodule", "--quiet", "add", str(library.root), "lib")
    repository.commit()
    repository.git("submodule", "--quiet", "deinit", "--force", "lib")
    assert repository.names() == [".gitmodules"]


def test_another_repository_inside_counts(repository: Tree) -> None:
    repository.write("a")
    repository.commit()
    repository.write("nested/b")
    repository.git("init", "-q", at="nested")
    repository.commit(at="nested")
    repository.write("nested/c")
    assert repository.names() == ["a", "nested/b", "nested/c"]


def test_a_workspace_below_the_root_of_its_repository(repository: Tree) -> None:
    repository.write("outside")
    repository.write("rust/Cargo.toml")
    repository.commit()
    repository.write("rust/new")
    repository.root /= "rust"
    assert repository.names() == ["Cargo.toml", "new"]


def test_a_workspace_that_git_ignores_counts_as_a_whole(repository: Tree) -> None:
    repository.write(".gitignore", "/generated/\n")
    repository.commit()
    repository.write("generated/Cargo.toml")
    repository.write("generated/target/x")
    repository.root /= "generated"
    assert repository.names() == ["Cargo.toml"]


def test_outside_git_everything_but_target_counts(plain: Tree) -> None:
    for name in (".gitignore", ".config/nextest.toml", "a.log", "target/x", "src/main.rs"):
        plain.write(name, "*.log\n")
    assert plain.names() == [".config/nextest.toml", ".gitignore", "a.log", "src/main.rs"]


def test_without_git_on_this_computer_everything_but_target_counts(
    repository: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(".gitignore", "*.log\n")
    repository.write("a.log")
    repository.write("target/x")
    monkeypatch.setenv("PATH", str(repository.base / "nothing"))
    assert repository.names() == [".gitignore", "a.log"]


@pytest.mark.parametrize("in_git", [True, False])
def test_names_are_bytes_to_us(tmp_path: Path, in_git: bool) -> None:
    tree = Tree(tmp_path)
    if in_git:
        tree.git("init", "-q")
    names = [
        "with space",
        "new\nline",
        'quo"te',
        "back\\slash",
        "-dash",
        "ü" * 120,
        os.fsdecode(b"latin-\xfc"),
    ]
    for name in names:
        tree.write(name)
    snapshot, staged = tree.stage()
    assert sorted(os.listdir(os.fsencode(snapshot))) == sorted(map(os.fsencode, names))  # noqa: PTH208 -- names as bytes
    assert staged.copied == len(names)
    assert tree.stage()[1].copied == 0


def test_what_is_neither_file_nor_link_is_left_out(plain: Tree) -> None:
    plain.write("a")
    os.mkfifo(plain.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plain.root / "socket"))
        snapshot, staged = plain.stage()
    assert contents(snapshot) == {"a": "x"}
    assert staged.files == 1


def test_a_workspace_that_is_none() -> None:
    with pytest.raises(UsageError, match="is not a directory") as caught:
        list_sources(Path("/no/such"), excluded=(), deadline=Deadline.after(1))
    assert exit_code_of(caught.value) == 2


# What a snapshot holds


@pytest.mark.parametrize("in_git", [True, False])
def test_links_are_staged_as_links(tmp_path: Path, in_git: bool) -> None:
    tree = Tree(tmp_path)
    if in_git:
        tree.git("init", "-q")
    tree.write("dir/a")
    for name, to in (
        ("to-file", "dir/a"),
        ("to-dir", "dir"),
        ("dangling", "nowhere"),
        ("out", "/etc/passwd"),
    ):
        (tree.root / name).symlink_to(to)
    snapshot, _ = tree.stage()
    assert contents(snapshot) == {
        "dir/a": "x", "to-file": "-> dir/a", "to-dir": "-> dir", "dangling": "-> nowhere", "out": "-> /etc/passwd",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "staged"),
    [
        (0o755, 0o755),
        (0o600, 0o600),
        (0o4755, 0o755),
        (0o2755, 0o755),
        (0o1644, 0o644),
        (0o200, 0o600),
        (0, 0o400),
    ],
)
def test_modes_are_kept_but_set_id_bits_go_and_the_owner_may_read(
    plain: Tree, mode: int, staged: int
) -> None:
    plain.write("a", mode=mode)
    snapshot, _ = plain.stage()
    assert (snapshot / "a").stat().st_mode & 0o7777 == staged


def test_times_are_kept(plain: Tree) -> None:
    os.utime(plain.write("a"), ns=(LATER_NS, LATER_NS))
    snapshot, _ = plain.stage()
    assert (snapshot / "a").stat().st_mtime_ns == LATER_NS


def test_an_empty_workspace_is_an_empty_snapshot(plain: Tree) -> None:
    snapshot, staged = plain.stage()
    assert staged == Staged(0, 0)
    assert list(snapshot.iterdir()) == []


def test_progress_is_told(plain: Tree) -> None:
    for number in range(3):
        plain.write(f"f{number}")
    plain.stage()
    assert plain.events[0] == PhaseProgress("stage", 0, 3, "files")


# The second time


def test_nothing_is_copied_twice(plain: Tree) -> None:
    for number in range(20):
        plain.write(f"d{number % 3}/f{number}")
    assert plain.stage()[1] == Staged(20, 20)
    index_before = plain.index.stat().st_ino
    snapshot, staged = plain.stage()
    assert staged == Staged(20, 0)
    assert contents(snapshot) == contents(plain.root)
    assert plain.index.stat().st_ino == index_before


def test_a_snapshot_shares_its_files_with_the_cache(plain: Tree) -> None:
    plain.write("a")
    first, _ = plain.stage()
    second, _ = plain.stage()
    assert (first / "a").samefile(second / "a")
    assert not (first / "a").samefile(plain.root / "a")


def test_a_file_edited_afterwards_leaves_the_earlier_snapshot_alone(plain: Tree) -> None:
    plain.write("a", "old")
    plain.write("b", "same")
    first, _ = plain.stage()
    plain.write("a", "newer")
    second, staged = plain.stage()
    assert contents(first) == {"a": "old", "b": "same"}
    assert contents(second) == {"a": "newer", "b": "same"}
    assert staged.copied == 1


def test_an_edit_of_the_same_length_is_seen_by_its_time(plain: Tree) -> None:
    path = plain.write("a", "old")
    plain.stage()
    path.write_text("new")
    os.utime(path, ns=(LATER_NS, LATER_NS))
    assert contents(plain.stage()[0]) == {"a": "new"}


def test_a_change_of_mode_is_seen(plain: Tree) -> None:
    path = plain.write("a")
    plain.stage()
    path.chmod(0o755)
    snapshot, staged = plain.stage()
    assert staged.copied == 1
    assert os.access(snapshot / "a", os.X_OK)


def test_files_that_are_gone_are_gone(plain: Tree) -> None:
    plain.write("a")
    (plain.root / "d/e").mkdir(parents=True)
    plain.write("d/e/b")
    first, _ = plain.stage()
    (plain.root / "d/e/b").unlink()
    second, staged = plain.stage()
    assert contents(first) == {"a": "x", "d/e/b": "x"}
    assert contents(second) == {"a": "x"}
    assert staged == Staged(1, 0)
    assert not (plain.index.parent / "tree/d").exists()


SHAPES = ("file", "directory", "link to a file", "link to a directory", "dangling link", "nothing")


def shape(tree: Tree, kind: str, outside: Path) -> None:
    """Make the name `a` of the workspace this, and nothing else."""
    path = tree.root / "a"
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        for inner in sorted(path.rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() else inner.unlink()
        path.rmdir()
    if kind == "file":
        tree.write("a", "a file")
    elif kind == "directory":
        tree.write("a/b", "in a directory")
        tree.write("a/c/d", "deeper")
    elif kind.startswith("link to"):
        path.symlink_to(outside / ("file" if kind == "link to a file" else "directory"))
    elif kind == "dangling link":
        path.symlink_to("nowhere")


@pytest.mark.parametrize(("before", "in_git"), [*((kind, False) for kind in SHAPES), ("directory", True)])
def test_a_name_may_become_anything_else(tmp_path: Path, before: str, in_git: bool) -> None:
    outside = tmp_path / "outside"
    (outside / "directory/c/d").mkdir(parents=True)
    (outside / "directory/b").mkdir()
    for name in ("file", "directory/b/precious", "directory/c/d/precious"):
        (outside / name).write_text("the user's own")
    precious = contents(outside)
    for number, after in enumerate(SHAPES):
        base = tmp_path / str(number)
        base.mkdir()
        tree = Tree(base)
        tree.write("z")
        shape(tree, before, outside)
        if in_git:
            tree.git("init", "-q")
            tree.commit()
        first, _ = tree.stage()
        kept = contents(first)
        shape(tree, after, outside)
        expected = contents(tree.root)
        second, _ = tree.stage()
        assert contents(second) == expected
        assert contents(first) == kept
        assert contents(outside) == precious, f"{before} -> {after} reached outside of the cache"
        assert tree.stage()[1].copied == 0


def test_tracked_names_below_a_directory_that_became_a_link_are_not_followed(repository: Tree) -> None:
    repository.write("real/b", "through the link")
    repository.write("a/b", "own")
    repository.commit()
    (repository.root / "a/b").unlink()
    (repository.root / "a").rmdir()
    (repository.root / "a").symlink_to("real")
    snapshot, _ = repository.stage()
    assert contents(snapshot) == {"real/b": "through the link", "a": "-> real"}


def test_a_cache_behind_a_link_of_the_users_stays_behind_it(plain: Tree) -> None:
    (plain.base / "elsewhere").mkdir()
    plain.cache.symlink_to(plain.base / "elsewhere")
    plain.write("a")
    plain.stage()
    (plain.root / "a").unlink()
    plain.write("a/b", "deep")
    assert contents(plain.stage()[0]) == {"a/b": "deep"}
    assert plain.cache.is_symlink()


# What can go wrong


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1]", '"x"', '{"a": 1}', '{"a": [1]}', "null", "\x00\ufffd"]
)
def test_an_index_that_cannot_be_read_means_copying_anew(plain: Tree, text: str) -> None:
    plain.write("a", "fine")
    plain.stage()
    plain.index.write_text(text)
    (plain.index.parent / "tree/leftover").mkdir()
    snapshot, staged = plain.stage()
    assert contents(snapshot) == {"a": "fine"}
    assert staged.copied == 1
    assert json.loads(plain.index.read_text()).keys() == {"a"}
    assert not (plain.index.parent / "tree/leftover").exists()
    assert plain.stage()[1].copied == 0


def test_an_interrupted_staging_leaves_no_index_that_lies(plain: Tree) -> None:
    plain.write("a", "old")
    plain.stage()

    class Stop(Exception):
        """In place of Ctrl-C."""

    def interrupt(_event: Event) -> None:
        raise Stop

    plain.write("a", "newer")
    with pytest.raises(Stop):
        stage_sources(
            plain.root, plain.base / "cut", cache=plain.cache, excluded=(),
            progress=Phase("stage", interrupt), deadline=Deadline.after(5),
        )  # fmt: skip
    plain.write("a", "old")
    assert contents(plain.stage()[0]) == {"a": "old"}


def test_files_that_somebody_removed_from_the_cache_come_back(plain: Tree) -> None:
    plain.write("d/a")
    plain.write("b")
    plain.stage()
    (plain.index.parent / "tree/d/a").unlink()
    (plain.index.parent / "tree/d").rmdir()
    snapshot, staged = plain.stage()
    assert contents(snapshot) == {"d/a": "x", "b": "x"}
    assert staged.copied == 1


def test_two_workspaces_do_not_meet_in_the_cache(tmp_path: Path) -> None:
    one, other = Tree(tmp_path, "one"), Tree(tmp_path, "other")
    one.write("a", "one")
    other.write("a", "other")
    other.snapshots = 10
    first, second = one.stage()[0], other.stage()[0]
    assert (contents(first), contents(second)) == ({"a": "one"}, {"a": "other"})
    assert one.stage()[1].copied == 0


def test_two_stagings_of_one_workspace_wait_for_each_other(plain: Tree) -> None:
    plain.write("a")
    plain.stage()
    with (
        locked(plain.index.with_name("lock"), deadline=Deadline.after(1)),
        pytest.raises(RunTimeout),
    ):
        stage_sources(
            plain.root, plain.base / "second", cache=plain.cache, excluded=(),
            progress=Phase("stage", silent), deadline=Deadline.after(0.05),
        )  # fmt: skip


def test_a_snapshot_that_cannot_be_written_names_the_workspace(plain: Tree) -> None:
    plain.write("a")
    (plain.base / "file").touch()
    with pytest.raises(HostError, match="could not be staged: Not a directory") as caught:
        stage_sources(
            plain.root, plain.base / "file" / "snapshot", cache=plain.cache, excluded=(),
            progress=Phase("stage", silent), deadline=Deadline.after(5),
        )  # fmt: skip
    assert str(plain.root) in caught.value.message
    assert exit_code_of(caught.value) == 20


def test_across_file_systems_a_link_becomes_a_copy(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy to")
    (tmp_path / "a").write_text("x")
    target = other / f"vmrunner-test-{os.getpid()}"
    try:
        link_or_copy(tmp_path / "a", target)
        assert target.read_text() == "x"
    finally:
        target.unlink(missing_ok=True)


def test_a_git_hooks_environment_does_not_mislead(
    repository: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write("kept")
    repository.commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    assert repository.names() == ["kept"]

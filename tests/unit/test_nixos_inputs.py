"""Whether an image can be used again without asking Nix: every change of what went into it is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from vmrunner.host.paths import data_dir
from vmrunner.image.nixos import inputs as module
from vmrunner.image.nixos.inputs import Inputs, own_digest, record, unchanged

REQUEST: Final[dict[str, object]] = {"modules": ["/home/user/vm.nix"], "nixpkgs": "PinSource()"}
LATER: Final = time.time() + 3600


@dataclass(frozen=True)
class Project:
    """A directory with a module, what that imports, and other files."""

    root: Path
    store: Path

    @property
    def module(self) -> Path:
        return self.root / "vm.nix"

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    def note(
        self, *files: Path, watched: tuple[Path, ...] = (), nixpkgs: str | None = None, began: float = LATER
    ) -> Inputs | None:
        return record(
            nix="2.26.3",
            request=REQUEST,
            nixpkgs={"path": nixpkgs, "version": "26.11", "revision": None},
            files_read=frozenset(files),
            watched=watched,
            store=self.store,
            began=began,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project", tmp_path / "store")
    (made.tree / "deep").mkdir(parents=True)
    made.module.write_text("{ }")
    (made.root / "hosts.txt").write_text("a")
    (made.tree / "one").write_text("1")
    (made.tree / "deep/two").write_text("2")
    made.store.mkdir()
    return made


def same(inputs: Inputs | None) -> bool:
    assert inputs is not None
    read_back = Inputs.model_validate_json(inputs.model_dump_json())
    return unchanged(read_back, nix="2.26.3", request=REQUEST)


def test_nothing_changed(project: Project) -> None:
    assert same(project.note(project.module))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "vm.nix").write_text("{ services.x.enable = true; }"),
        lambda root: (root / "vm.nix").unlink(),
        lambda root: os.utime(root / "vm.nix", ns=(1, 1)),
        lambda root: (root / "hosts.txt").write_text("bb"),
        lambda root: (root / "hosts.txt").unlink(),
        lambda root: (root / "new.nix").write_text("1"),
        lambda root: (root / "hosts.txt").rename(root / "other.txt"),
    ],
)
def test_module_or_a_file_beside_it_changed(project: Project, change: Callable[[Path], object]) -> None:
    noted = project.note(project.module)
    change(project.root)
    assert not same(noted)


def test_file_replaced_by_one_of_the_same_size_and_time(project: Project) -> None:
    noted = project.note(project.module)
    found = project.module.stat()
    (project.root / "x").write_text("{;}")
    os.utime(project.root / "x", ns=(found.st_atime_ns, found.st_mtime_ns))
    (project.root / "x").rename(project.module)
    assert not same(noted)


@pytest.mark.parametrize("name", ["tree/one", "tree/deep/two", "tree/deep/three"])
def test_directory_that_was_copied_changed(project: Project, name: str) -> None:
    noted = project.note(project.tree)
    assert same(noted)
    (project.root / name).write_text("changed")
    assert not same(noted)


def test_directory_below_the_module_is_not_looked_into(project: Project) -> None:
    noted = project.note(project.module)
    (project.tree / "one").write_text("changed")
    assert same(noted)


def test_store_and_own_expressions_are_not_watched(project: Project) -> None:
    inside = project.store / "x.nix"
    inside.write_text("1")
    noted = project.note(project.module, inside, data_dir("nix") / "default.nix")
    assert noted is not None
    assert set(noted.files) == {str(project.module)}
    assert set(noted.listings) == {str(project.root)}


def test_clone_of_nixpkgs_counts_by_the_files_that_were_evaluated(project: Project) -> None:
    noted = project.note(project.tree / "deep/two", nixpkgs=str(project.tree))
    (project.tree / "deep/unread").write_text("x")
    assert same(noted)
    (project.tree / "deep/two").write_text("changed")
    assert not same(noted)


def test_watched_files_count_as_read(project: Project) -> None:
    noted = project.note(project.module, watched=(project.tree / "one",))
    (project.tree / "one").write_text("changed")
    assert not same(noted)


def test_other_nix_or_other_request(project: Project) -> None:
    noted = project.note(project.module)
    assert noted is not None
    assert not unchanged(noted, nix="2.26.4", request=REQUEST)
    assert not unchanged(noted, nix="2.26.3", request={**REQUEST, "modules": []})


def test_what_vmrunner_itself_puts_in_changed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = project.note(project.module)
    own = project.store / "nix"
    own.mkdir()
    (own / "default.nix").write_text("1")
    monkeypatch.setattr(module, "data_dir", lambda _: own)
    first = own_digest()
    assert not same(noted)
    (own / "default.nix").chmod(0o755)
    second = own_digest()
    (own / "default.nix").write_text("2")
    assert len({first, second, own_digest()}) == 3


def test_other_format_of_the_record(project: Project) -> None:
    noted = project.note(project.module)
    assert noted is not None
    assert not unchanged(noted.model_copy(update={"format_version": 99}), nix="2.26.3", request=REQUEST)


def test_nothing_is_noted_where_nix_does_not_say_what_it_read(project: Project) -> None:
    noted = record(
        nix="2.93", request=REQUEST, nixpkgs={}, files_read=None, watched=(), store=project.store, began=LATER
    )
    assert noted is None


def test_nothing_is_noted_where_a_file_changed_while_nix_evaluated(project: Project) -> None:
    began = time.time() + 0.1
    time.sleep(0.2)
    assert project.note(project.module, began=began)
    (project.root / "hosts.txt").write_text("b")
    assert project.note(project.module, began=began) is None


def test_nothing_is_noted_where_a_file_vanished_while_nix_evaluated(project: Project) -> None:
    began = time.time() + 0.1
    time.sleep(0.2)
    (project.root / "hosts.txt").unlink()
    assert project.note(project.module, began=began) is None


def test_nothing_is_noted_of_more_than_can_be_looked_at(project: Project) -> None:
    for number in range(1000):
        (project.tree / f"{number}").touch()
    assert project.note(project.module) is not None
    assert project.note(project.tree) is None
    assert project.note(project.tree / "one") is None

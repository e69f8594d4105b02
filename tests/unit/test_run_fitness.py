"""An archive is held against an image: what is said, and what has to be brought into the guest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nextest_archives import TEST_BINARY, elf_file, file_member, metadata_members, write_archive
from sample_images import write_image

from vmrunner.config.model import Config
from vmrunner.errors import ArchiveError
from vmrunner.events import Note, silent
from vmrunner.host.deadline import Deadline
from vmrunner.nextest.arguments import NextestArguments
from vmrunner.nextest.extract import extract_archive
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.fitness import Fitness, abilities_of

TOOL = NextestTool(Path("/usr/bin/cargo-nextest"), "0.9.148", "x86_64", None, None)
GLIBC = "/nix/store/aaaa-glibc"
OF_THE_STORE = elf_file(interpreter=f"{GLIBC}/lib/ld.so")


def fitness(directory: Path, program: bytes, **settings: Any) -> Fitness:
    """Of an archive with that one program, and sources that are empty."""
    members = [*metadata_members(), file_member(f"target/{TEST_BINARY}", program, 0o755)]
    archive = write_archive(directory / "a.tar.zst", members)
    with extract_archive(archive, cache=directory, emit=silent, deadline=Deadline.after(60)) as extracted:
        return Fitness(
            Config.model_validate(settings), NextestArguments(), extracted,
            workspace=directory, tool=TOOL, environment={},
        )  # fmt: skip


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This host's store has a C library."""
    (tmp_path / "store/aaaa-glibc/lib").mkdir(parents=True)
    (tmp_path / "store/aaaa-glibc/lib/ld.so").touch()
    monkeypatch.setenv("NIX_STORE_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def test_what_guests_offer_is_what_the_manifest_says(tmp_path: Path) -> None:
    image = write_image(tmp_path, name="nixos", libraries=["libz.so.1"], store_paths=[GLIBC])
    guest = abilities_of(image, tool=TOOL, environment={"A": "b"})
    assert (guest.image, guest.architecture, guest.glibc) == ("nixos", "x86_64", "2.36")
    assert guest.libraries == frozenset({"libz.so.1"})
    assert guest.store_paths == frozenset({GLIBC})
    assert guest.nextest == "0.9.148"
    own = write_image(tmp_path / "own", nextest="0.9.100")
    assert abilities_of(own, tool=TOOL, environment={}).nextest == "0.9.100"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("auto", "the machine was made without this host's store"),
        ("copy", "only a nixos image that is built for the run can have a copy"),
        ("off", "`nix-store` is off"),
    ],
)
def test_a_store_path_that_cannot_come_to_the_guest(tmp_path: Path, how: str, reason: str) -> None:
    found = fitness(tmp_path, OF_THE_STORE, nix_store=how)
    found.check(write_image(tmp_path / "image"), emit=silent)
    if how != "off":
        found.require_store(shared=True)
    with pytest.raises(ArchiveError) as caught:
        found.require_store(shared=how == "off")
    assert caught.value.exit_code == 24
    assert caught.value.message == (
        f"`{TEST_BINARY}` needs {GLIBC}, which this host has, but the image `debian` does not, and {reason}"
    )
    assert "--nix-store share" in str(caught.value.hint)


def test_store_paths_are_copied_where_that_was_asked_for_until_the_image_has_them(tmp_path: Path) -> None:
    found = fitness(tmp_path, OF_THE_STORE, nix_store="copy")
    found.check(write_image(tmp_path / "image"), emit=silent)
    assert found.store_paths_to_copy == (GLIBC,)
    found.check(write_image(tmp_path / "other", store_paths=[GLIBC]), emit=silent)
    assert not found.store_paths_to_copy
    found.require_store(shared=False)
    shared = fitness(tmp_path, OF_THE_STORE, nix_store="share")
    shared.check(write_image(tmp_path / "image"), emit=silent)
    assert not shared.store_paths_to_copy


def test_a_project_that_requires_more_than_the_images_nextest(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config/nextest.toml").write_text('nextest-version = "0.9.120"')
    found = fitness(tmp_path, elf_file())
    found.check(write_image(tmp_path / "image"), emit=silent)
    with pytest.raises(ArchiveError, match=r"requires nextest 0\.9\.120"):
        found.check(write_image(tmp_path / "old", nextest="0.9.100"), emit=silent)


def test_a_nextest_that_is_older_than_the_archives_maker_is_only_told_of(tmp_path: Path) -> None:
    notes: list[Any] = []
    image = write_image(tmp_path / "old", nextest="0.9.100")
    fitness(tmp_path, elf_file()).check(image, emit=notes.append)
    (note,) = notes
    assert isinstance(note, Note)
    assert "(0.9.100) is older than 0.9.148" in note.text
    notes.clear()
    given = fitness(tmp_path, elf_file(), archive=tmp_path / "a.tar.zst")
    given.check(image, emit=notes.append)
    assert notes == [], "nobody knows who made it"


def test_the_tool_that_is_carried_is_as_new_as_itself(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert abilities_of(image, tool=replace(TOOL, version="0.9.1"), environment={}).nextest == "0.9.1"

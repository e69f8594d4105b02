"""What is laid over the Debian system: owned by root, with plain modes, masks and wants as links."""

from __future__ import annotations

import io
import tarfile

from sample_recipes import FIELDS

from vmrunner.image.overlay import overlay_links, overlay_tar, unwanted_links
from vmrunner.image.recipe import GuestFile, Recipe

RECIPE = Recipe.model_validate(
    FIELDS
    | {
        "enable": {"multi-user.target": ["a.service"]},
        "unwant": {"sysinit.target": ["b.mount"]},
        "mask": ["c.timer"],
        "mask_generators": ["d-generator"],
    }
)
FILES = [
    GuestFile("etc/systemd/system/a.service", 0o644, b"[Unit]\n"),
    GuestFile("usr/lib/x/run", 0o755, b"#!"),
]


def _members() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(overlay_tar(RECIPE, FILES))) as archive:
        return {member.name: member for member in archive}


def test_masks_are_links_to_nothing() -> None:
    links = overlay_links(RECIPE)
    assert links["etc/systemd/system/c.timer"] == "/dev/null"
    assert links["etc/systemd/system-generators/d-generator"] == "/dev/null"


def test_enabled_unit_is_wanted_by_its_target() -> None:
    link = "etc/systemd/system/multi-user.target.wants/a.service"
    assert overlay_links(RECIPE)[link] == "/etc/systemd/system/a.service"
    assert _members()[link].issym()


def test_unwanted_unit_loses_only_the_link() -> None:
    assert unwanted_links(RECIPE) == ["usr/lib/systemd/system/sysinit.target.wants/b.mount"]
    assert not [name for name in _members() if "b.mount" in name]


def test_everything_is_owned_by_root() -> None:
    assert {(member.uid, member.gid) for member in _members().values()} == {(0, 0)}


def test_modes_and_content_are_those_of_the_files() -> None:
    with tarfile.open(fileobj=io.BytesIO(overlay_tar(RECIPE, FILES))) as archive:
        for file in FILES:
            member = archive.getmember(file.path)
            content = archive.extractfile(member)
            assert content is not None and content.read() == file.content
            assert member.mode == file.mode


def test_every_directory_is_named_before_what_is_in_it() -> None:
    names = list(_members())
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)
    assert _members()["usr/lib/x"].mode == 0o755


def test_devices_have_a_place() -> None:
    assert _members()["dev"].isdir()


def test_caches_are_marked_as_fresh() -> None:
    assert {"etc/.updated", "var/.updated"} <= set(_members())

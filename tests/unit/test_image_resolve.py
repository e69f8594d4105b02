"""What is written after --image, and the image it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_images import write_image

from vmrunner.errors import ImageBuildFailed, ImageNotFound, exit_code_of
from vmrunner.events import Event, Note, silent
from vmrunner.host.deadline import Deadline
from vmrunner.image import store
from vmrunner.image.manifest import Image
from vmrunner.image.resolve import locate_image, resolve_image


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _resolve(image: str, packages: tuple[str, ...] = ()) -> Image:
    return resolve_image(image, packages=packages, emit=silent, deadline=Deadline.after(10))


def _built(packages: tuple[str, ...] = ()) -> Path:
    """Put an image where the Debian image is looked for, so that nothing has to be built."""
    located = locate_image("debian", packages=packages, emit=silent)
    assert not located.built
    return write_image(located.image.directory).directory


def test_directory_is_opened(tmp_path: Path) -> None:
    write_image(tmp_path / "mine")
    for spelled in ("mine", "./mine", str(tmp_path / "mine")):
        assert _resolve(spelled).directory == tmp_path / "mine"
        assert locate_image(spelled, packages=(), emit=silent).built


def test_path_that_does_not_exist() -> None:
    with pytest.raises(ImageNotFound, match="there is no image directory"):
        _resolve("./none")


def test_built_image_is_taken_from_the_store() -> None:
    directory = _built()
    assert _resolve("debian").directory == directory
    assert locate_image("debian", packages=(), emit=silent).built


def test_packages_make_another_image() -> None:
    directory = _built()
    other = _built(packages=("postgresql",))
    assert other != directory
    assert _resolve("debian", packages=("postgresql",)).directory == other


def test_bad_package_name_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ImageBuildFailed, match="'--force-yes' is not the name"):
        _resolve("debian", packages=("--force-yes",))


def test_image_that_is_not_built_is_described_by_its_recipe() -> None:
    manifest = locate_image("debian", packages=("zsh", "acl"), emit=silent).image.manifest
    assert (manifest.name, manifest.root_disk_size) == ("debian", 8 << 30)
    assert "root=/dev/vda" in manifest.kernel_command_line
    assert manifest.built_from["packages"] == "acl zsh"
    assert store.list_images() == []


def test_auto_says_what_it_took_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = _built()
    said: list[Event] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        resolve_image("auto", packages=(), emit=said.append, deadline=Deadline.after(10)).directory
        == directory
    )
    assert said == [Note("image: debian (there is no nix-build on PATH)")]


def test_auto_with_nix_says_why_not_nixos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nix-build").write_text("#!/bin/sh\n")
    (tmp_path / "nix-build").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[Event] = []
    locate_image("auto", packages=(), emit=said.append)
    assert isinstance(said[0], Note) and "nix-build is here" in said[0].text


def test_nixos_cannot_be_built_yet() -> None:
    with pytest.raises(ImageNotFound, match="nixos") as caught:
        _resolve("nixos")
    assert exit_code_of(caught.value) == 21
    assert "--image debian" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("image", "hint"), [("debain", "`debian`"), ("nix", "`nixos`"), ("fedora", "a directory")]
)
def test_unknown_name_gets_the_nearest_one(image: str, hint: str) -> None:
    with pytest.raises(ImageNotFound, match=f"there is no image '{image}'") as caught:
        _resolve(image)
    assert hint in (caught.value.hint or "")

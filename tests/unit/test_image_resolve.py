"""What is written after --image, and the image it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_images import write_image

from vmrunner.errors import ConfigError, ImageBuildFailed, ImageNotFound, VmrunnerError, exit_code_of
from vmrunner.events import Event, Note, silent
from vmrunner.host.deadline import Deadline
from vmrunner.image import store
from vmrunner.image.manifest import Image
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import locate_image, resolve_image, settle


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _resolve(image: str, packages: tuple[str, ...] = ()) -> Image:
    return resolve_image(ImageRequest(image, packages), emit=silent, deadline=Deadline.after(10))


def _built(packages: tuple[str, ...] = ()) -> Path:
    """Put an image where the Debian image is looked for, so that nothing has to be built."""
    located = locate_image(ImageRequest("debian", packages), emit=silent)
    assert not located.built
    return write_image(located.image.directory).directory


def test_directory_is_opened(tmp_path: Path) -> None:
    write_image(tmp_path / "mine")
    for spelled in ("mine", "./mine", str(tmp_path / "mine")):
        assert _resolve(spelled).directory == tmp_path / "mine"
        assert locate_image(ImageRequest(spelled), emit=silent).built


def test_path_that_does_not_exist() -> None:
    with pytest.raises(ImageNotFound, match="there is no image directory"):
        _resolve("./none")


def test_built_image_is_taken_from_the_store() -> None:
    directory = _built()
    assert _resolve("debian").directory == directory
    assert locate_image(ImageRequest("debian"), emit=silent).built


def test_packages_make_another_image() -> None:
    directory = _built()
    other = _built(packages=("postgresql",))
    assert other != directory
    assert _resolve("debian", packages=("postgresql",)).directory == other


def test_bad_package_name_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ImageBuildFailed, match="'--force-yes' is not the name"):
        _resolve("debian", packages=("--force-yes",))


def test_image_that_is_not_built_is_described_by_its_recipe() -> None:
    manifest = locate_image(ImageRequest("debian", ("zsh", "acl")), emit=silent).image.manifest
    assert (manifest.name, manifest.root_disk_size) == ("debian", 8 << 30)
    assert "root=/dev/vda" in manifest.kernel_command_line
    assert manifest.built_from["packages"] == "acl zsh"
    assert store.list_images() == []


def test_auto_says_what_it_took_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = _built()
    said: list[Event] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    image = resolve_image(ImageRequest("auto"), emit=said.append, deadline=Deadline.after(10))
    assert image.directory == directory
    assert said == [Note("image: debian (there is no nix-build on PATH)")]


@pytest.fixture
def nix_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nix-build").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nix-build").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("nix_on_path")
def test_auto_takes_nixos_where_nix_is() -> None:
    said: list[Event] = []
    assert settle(ImageRequest("auto"), said.append).image == "nixos"
    assert said == [Note("image: nixos (nix-build is on PATH)")]


@pytest.mark.usefixtures("nix_on_path")
def test_nix_that_fails_is_no_reason_to_take_debian() -> None:
    _built()
    with pytest.raises(VmrunnerError) as caught:
        resolve_image(ImageRequest("auto"), emit=silent, deadline=Deadline.after(10))
    assert exit_code_of(caught.value) in (20, 21)


@pytest.mark.parametrize(
    ("request_", "setting", "hint"),
    [
        (ImageRequest("nixos", packages=("zsh",)), "packages", "environment.systemPackages"),
        (ImageRequest("debian", modules=(Path("vm.nix"),)), "modules", "--image nixos"),
        (ImageRequest("debian", nixpkgs="/nixpkgs"), "nixpkgs", "--image nixos"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(request_: ImageRequest, setting: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"`{setting}`") as caught:
        settle(request_, silent)
    assert exit_code_of(caught.value) == 2
    assert hint in str(caught.value.hint)


def test_settings_of_an_image_that_is_built_already_are_told_to_change_nothing() -> None:
    said: list[Event] = []
    assert settle(ImageRequest("./mine", packages=("zsh",)), said.append).image == "./mine"
    assert said == [Note("`packages` changes nothing: the image ./mine is built already", "warning")]


def test_a_setting_that_auto_has_no_use_for_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no nix-build on PATH"):
        settle(ImageRequest("auto", modules=(Path("vm.nix"),)), silent)


@pytest.mark.parametrize(
    ("image", "hint"), [("debain", "`debian`"), ("nix", "`nixos`"), ("fedora", "a directory")]
)
def test_unknown_name_gets_the_nearest_one(image: str, hint: str) -> None:
    with pytest.raises(ImageNotFound, match=f"there is no image '{image}'") as caught:
        _resolve(image)
    assert hint in (caught.value.hint or "")

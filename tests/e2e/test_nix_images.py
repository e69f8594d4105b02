"""Real Nix and the image store: where nixpkgs comes from, roots that live as long as their image, and re-use."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from nix_store import STAND_IN, NixStore
from real_nix import modern_nix, nix, nix_of_file

from vmrunner.errors import ImageBuildFailed
from vmrunner.events import Event, Phase, PhaseFinished, silent
from vmrunner.host.deadline import Deadline
from vmrunner.image import store
from vmrunner.image.manifest import Image
from vmrunner.image.nixos import build as module
from vmrunner.image.nixos.build import build_nixos, locate_nixos
from vmrunner.image.nixos.nix_build import NixVersion, nix_version
from vmrunner.image.nixos.nixpkgs import Nixpkgs, parse_source, resolve
from vmrunner.image.request import ImageRequest

__all__ = ["modern_nix", "nix", "nix_of_file"]

NIX_IMAGE = Path(__file__).with_name("nix_image.nix")
ANY_HASH = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.fixture
def version(nix: NixStore) -> NixVersion:
    return nix_version(deadline=Deadline.after(20))


def resolved(text: str | None, directory: Path, version: NixVersion) -> Nixpkgs:
    return resolve(
        parse_source(text, directory=directory),
        nix=version,
        scratch=directory / "source.json",
        current=Phase("x", silent),
        deadline=Deadline.after(60),
    )


def packed(directory: Path) -> tuple[str, str]:
    """The stand-in as a tarball: its URL, and the hash that Nix wants for it."""
    archive = directory / "nixpkgs.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", STAND_IN.parent, STAND_IN.name], check=True)
    return f"file://{archive}", ANY_HASH


def test_clone(nix: NixStore, tmp_path: Path, version: NixVersion) -> None:
    found = resolved(str(STAND_IN), tmp_path, version)
    assert (found.path, found.version.partition(".")[0], found.revision) == (STAND_IN, "26", None)


def test_url(nix: NixStore, tmp_path: Path, version: NixVersion) -> None:
    url, wrong = packed(tmp_path)
    with pytest.raises(
        ImageBuildFailed, match=r"the hash of file:.* is not the one that was given"
    ) as caught:
        resolved(f"{url}#{wrong}", tmp_path, version)
    got = (caught.value.details or "").rpartition("got:")[2].strip()
    found = resolved(f"{url}#{got}", tmp_path, version)
    assert found.path.parent == nix.directory / "store"
    assert (found.path / "lib/.version").is_file()


def test_url_that_leads_nowhere(nix: NixStore, tmp_path: Path, version: NixVersion) -> None:
    with pytest.raises(
        ImageBuildFailed, match=r"^http://127\.0\.0\.1:9/x\.tar\.gz cannot be downloaded: could"
    ):
        resolved(f"http://127.0.0.1:9/x.tar.gz#{ANY_HASH}", tmp_path, version)


def test_npins(nix: NixStore, tmp_path: Path, version: NixVersion) -> None:
    pins = tmp_path / "npins"
    pins.mkdir()
    (pins / "sources.json").write_text(json.dumps({"pins": {}}))
    (pins / "default.nix").write_text(f'{{ nixpkgs = {{ outPath = {STAND_IN}; revision = "abc"; }}; }}')
    found = resolved("npins", tmp_path, version)
    assert found.revision == "abc"
    assert (found.path / "lib/.version").read_text() == (STAND_IN / "lib/.version").read_text()


def test_pin_needs_a_newer_nix_than_debians(nix: NixStore, tmp_path: Path, version: NixVersion) -> None:
    if version.numbers >= (2, 18):
        pytest.skip("this Nix is new enough, and would download it")
    before = sorted((nix.directory / "store").glob("*"))
    with pytest.raises(ImageBuildFailed, match=r"needs Nix 2\.18 or newer, but .*nix-build is"):
        resolved(None, tmp_path, version)
    assert sorted((nix.directory / "store").glob("*")) == before


@pytest.fixture
def request_(nix: NixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageRequest:
    """An image of nothing, with one module."""
    expressions = tmp_path / "expressions"
    expressions.mkdir()
    (expressions / "default.nix").write_bytes(NIX_IMAGE.read_bytes())
    monkeypatch.setattr(module, "data_dir", lambda _: expressions)
    project = tmp_path / "project"
    project.mkdir()
    (project / "vm.nix").write_text(f'"{tmp_path}"')
    return ImageRequest("nixos", modules=(project / "vm.nix",), nixpkgs=str(STAND_IN))


def made(request: ImageRequest, *, fresh: bool = False, seen: list[Event] | None = None) -> Image:
    emit = seen.append if seen is not None else silent
    return build_nixos(request, emit=emit, deadline=Deadline.after(60), fresh=fresh)


def test_image_keeps_its_store_path_until_it_is_removed(nix: NixStore, request_: ImageRequest) -> None:
    path = made(request_).root_disk.resolve().parent
    assert path.parent == nix.directory / "store"
    assert nix.run("nix-store", "--gc").returncode == 0
    assert path.is_dir()
    store.prune()
    assert nix.run("nix-store", "--gc").returncode == 0
    assert not path.exists()


def test_image_whose_store_path_was_deleted_is_built_again(nix: NixStore, request_: ImageRequest) -> None:
    image = made(request_)
    path = image.root_disk.resolve().parent
    assert nix.run("nix-store", "--delete", "--ignore-liveness", path).returncode == 0
    assert not path.exists()
    assert not locate_nixos(request_).built
    assert made(request_) == image
    assert path.is_dir()


def test_nothing_is_asked_of_nix_until_something_changes(nix: NixStore, request_: ImageRequest) -> None:
    first = made(request_)
    began = time.monotonic()
    assert locate_nixos(request_).image == first
    seen: list[Event] = []
    assert made(request_, seen=seen) == first
    assert time.monotonic() - began < 1
    assert seen == []
    assert made(request_, fresh=True, seen=seen) == first
    assert [event.text for event in seen if isinstance(event, PhaseFinished)] == [
        f"image {first.manifest.digest[:12]}"
    ]
    vm = request_.modules[0]
    vm.write_text(f'"another {vm}"')
    assert not locate_nixos(request_).built
    assert made(request_).manifest.digest != first.manifest.digest

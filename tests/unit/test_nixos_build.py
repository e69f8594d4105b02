"""The NixOS image in the image store: built once, kept while it is there, and built again when anything changed."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nix import FakeNix, image_in_store, install_fake_nix

from vmrunner.errors import ConfigError, HostError, ImageBuildFailed, ImageDamaged, RunTimeout, exit_code_of
from vmrunner.events import Event, Note, PhaseFinished, silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.paths import cache_dir, data_dir, images_dir
from vmrunner.image import store
from vmrunner.image.manifest import Image
from vmrunner.image.nixos.build import build_nixos, locate_nixos
from vmrunner.image.request import ImageRequest

URL = "https://x.example/nixpkgs.tar.gz#sha256-RYEMTlGCVc67pxVxjOlGd8w6fpF7Bur7gKL88FB0WTs="


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNix:
    return install_fake_nix(tmp_path / "nix-programs", monkeypatch)


@pytest.fixture
def request_(tmp_path: Path) -> ImageRequest:
    """One module; it is old enough to have been there when Nix began."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "vm.nix").write_text("{ }")
    return ImageRequest("nixos", modules=(directory / "vm.nix",), nixpkgs=URL)


def module(request: ImageRequest) -> Path:
    return request.modules[0]


def made(request: ImageRequest, *, fresh: bool = False, seen: list[Event] | None = None) -> Image:
    emit = seen.append if seen is not None else silent
    return build_nixos(request, emit=emit, deadline=Deadline.after(20), fresh=fresh)


def builds(nix: FakeNix) -> int:
    return len([call for call in nix.calls if call[0] == "nix-build"])


def left_in_cache() -> list[str]:
    return sorted(path.suffix for path in (cache_dir() / "nixos-requests").iterdir())


@pytest.fixture
def path(nix: FakeNix, request_: ImageRequest) -> Path:
    """The store path that nix-build gives; the module is read for it."""
    found = image_in_store(nix)
    # Its clock must have gone on since the module was written.
    nix.builds(found, files_read=(module(request_),))
    nix.program("nix-instantiate", f"sleep 0.05; {_answer(nix)}")
    return found


def _answer(nix: FakeNix) -> str:
    return (nix.directory / "nix-instantiate").read_text().rstrip().splitlines()[-1]


def test_entry_of_the_image_store(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    seen: list[Event] = []
    image = made(request_, seen=seen)
    assert image.directory == images_dir() / ("d" * 32)
    assert image.kernel.readlink() == path / "bzImage"
    assert image.root_disk.resolve() == path / "root.img"
    assert (image.directory / "gc-root").readlink() == path
    assert (image.directory / "manifest.json").read_bytes() == (path / "manifest.json").read_bytes()
    assert [event.text for event in seen if isinstance(event, PhaseFinished)] == ["image dddddddddddd"]
    assert [stored.digest for stored in store.list_images()] == ["d" * 32]


def test_what_nix_is_given(nix: FakeNix, path: Path, request_: ImageRequest, tmp_path: Path) -> None:
    nix.builds(path, before=f'while [ "$2" != spec ]; do shift; done; cp "$3" {tmp_path}/spec')
    made(replace(request_, store_paths=("/nix/store/b", "/nix/store/a", "/nix/store/a")))
    assert json.loads((tmp_path / "spec").read_text()) == {
        "nixpkgs": str(nix.store / f"{'n' * 32}-source"),
        "revision": "c05d",
        "system": "x86_64-linux",
        "modules": [str(module(request_))],
        "storePaths": ["/nix/store/a", "/nix/store/b"],
    }
    (call,) = [call for call in nix.calls if call[0] == "nix-build"]
    assert call[1:4] == [str(data_dir("nix")), "-A", "image"]


def test_nixpkgs_is_kept_while_it_is_needed_and_no_longer(
    nix: FakeNix, path: Path, request_: ImageRequest, tmp_path: Path
) -> None:
    nix.builds(path, before=f"ls -l {cache_dir()}/nixos-requests > {tmp_path}/seen")
    made(request_)
    assert f".nixpkgs -> {nix.store}/{'n' * 32}-source" in (tmp_path / "seen").read_text()
    assert ".nixpkgs" not in left_in_cache()


def test_second_time_asks_nothing_of_nix(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    first = made(request_)
    calls = len(nix.calls)
    assert made(request_) == first
    located = locate_nixos(request_)
    assert (located.built, located.image) == (True, first)
    assert len(nix.calls) == calls


def test_fresh_asks_nix_and_finds_the_same_image(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    first = made(request_)
    assert made(request_, fresh=True) == first
    assert builds(nix) == 2


def test_changed_module_is_another_image(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    made(request_)
    module(request_).write_text("{ services.x.enable = true; }")
    assert not locate_nixos(request_).built
    nix.builds(image_in_store(nix, "e" * 32), files_read=(module(request_),))
    assert made(request_).manifest.digest == "e" * 32


def test_nix_that_does_not_say_what_it_reads_is_asked_each_time(
    nix: FakeNix, path: Path, request_: ImageRequest
) -> None:
    nix.builds(path)
    first = made(request_)
    assert not locate_nixos(request_).built
    assert made(request_) == first
    assert builds(nix) == 2


def test_not_built_yet(nix: FakeNix, request_: ImageRequest) -> None:
    located = locate_nixos(request_)
    assert not located.built
    assert located.image.manifest.name == "nixos"
    assert not located.image.directory.exists()
    assert builds(nix) == 0


def test_garbage_collected_store_path_is_built_again(
    nix: FakeNix, path: Path, request_: ImageRequest
) -> None:
    first = made(request_)
    away = path.rename(path.with_name("collected"))
    nix.builds(path, files_read=(module(request_),), before=f"mv {away} {path}")
    assert [stored.digest for stored in store.list_images()] == ["d" * 32]
    assert not locate_nixos(request_).built
    assert made(request_) == first
    assert builds(nix) == 2


def test_entry_without_its_root_is_made_anew(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    image = made(request_)
    (image.directory / "gc-root").unlink()
    assert not locate_nixos(request_).built
    made(request_)
    assert (image.directory / "gc-root").readlink() == path


def test_pruned_image_loses_its_root_and_is_forgotten(
    nix: FakeNix, path: Path, request_: ImageRequest
) -> None:
    image = made(request_)
    store.prune()
    assert not image.directory.exists()
    assert path.is_dir()
    made(ImageRequest("nixos", nixpkgs=URL))
    assert left_in_cache() == [".json"]


def test_failed_build_leaves_nothing(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    nix.builds(path, before="echo 'error: no' >&2; exit 1")
    with pytest.raises(ImageBuildFailed, match="no"):
        made(request_)
    assert left_in_cache() == []
    assert store.list_images() == []


def test_interrupted_build_leaves_nothing(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    def interrupt(event: Event) -> None:
        if builds(nix):
            raise KeyboardInterrupt

    nix.builds(path, before="echo x >&2; sleep 0.3; echo y >&2; sleep 60")
    with pytest.raises(KeyboardInterrupt):
        build_nixos(request_, emit=interrupt, deadline=Deadline.after(20))
    assert left_in_cache() == []
    assert store.list_images() == []


def test_build_that_takes_too_long(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    nix.builds(path, before="sleep 60")
    with pytest.raises(RunTimeout):
        build_nixos(request_, emit=silent, deadline=Deadline.after(1))
    assert left_in_cache() == []


def test_image_that_is_none_does_not_get_into_the_store(
    nix: FakeNix, path: Path, request_: ImageRequest
) -> None:
    (path / "manifest.json").unlink()
    with pytest.raises(ImageDamaged, match=r"no manifest\.json"):
        made(request_)
    assert list(images_dir().glob("[!.]*")) == []


def test_manifest_of_another_image(nix: FakeNix, request_: ImageRequest) -> None:
    nix.builds(_misnamed(nix))
    with pytest.raises(ImageBuildFailed, match="has the digest"):
        made(request_)


def _misnamed(nix: FakeNix) -> Path:
    path = image_in_store(nix)
    return path.rename(path.with_name(f"{'f' * 32}-vmrunner-image"))


def test_result_outside_of_the_store(nix: FakeNix, request_: ImageRequest) -> None:
    nix.builds(Path("/etc"))
    with pytest.raises(ImageBuildFailed, match="no path of its store"):
        made(request_)


def test_two_at_once_build_once(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    nix.builds(path, files_read=(module(request_),), before="sleep 0.7")
    seen: list[Event] = []
    results: list[Image] = []
    threads = [threading.Thread(target=lambda: results.append(made(request_, seen=seen))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results[0] == results[1]
    assert builds(nix) == 1
    notes = [event.text for event in seen if isinstance(event, Note)]
    assert notes == ["another vmrunner is building this image; waiting for it"]


def test_two_requests_may_give_one_image(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    first = made(request_)
    other = ImageRequest("nixos", nixpkgs=URL)
    assert made(other) == first
    assert locate_nixos(request_).built and locate_nixos(other).built


def test_image_that_cannot_be_kept_does_not_stay(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    nix.program(
        "nix-store",
        'case "$*" in *gc-root*) echo "error: no space" >&2; exit 1;; esac; ln -sfn "$5" "$2"; echo "$2"',
    )
    with pytest.raises(ImageBuildFailed):
        made(request_)
    assert store.list_images() == []


def test_store_that_is_in_another_place(nix: FakeNix, request_: ImageRequest) -> None:
    """What a nix-build with NIX_REMOTE=local?root=... prints is not there for anybody else."""
    nix.builds(nix.store / f"{'a' * 32}-vmrunner-image")
    nix.program("nix-build", f"echo {nix.store}/{'a' * 32}-vmrunner-image")
    with pytest.raises(ImageBuildFailed, match="which is not there") as caught:
        made(request_)
    assert "another place" in str(caught.value.hint)
    assert store.list_images() == []


@pytest.mark.parametrize("kind", ["fifo", "loop", "directory"])
def test_module_that_nix_could_not_read(nix: FakeNix, tmp_path: Path, kind: str) -> None:
    """Nix would wait for ever for what comes through a FIFO."""
    module = tmp_path / "odd.nix"
    match kind:
        case "fifo":
            os.mkfifo(module)
        case "loop":
            module.symlink_to(module)
        case _:
            module.mkdir()
    with pytest.raises(ConfigError, match=r"odd\.nix") as caught:
        made(ImageRequest("nixos", modules=(module,), nixpkgs=str(tmp_path)))
    assert exit_code_of(caught.value) == 2


def test_module_that_is_not_there(nix: FakeNix, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`modules` names .*/nosuch\.nix, which does not exist") as caught:
        made(ImageRequest("nixos", modules=(tmp_path / "nosuch.nix",)))
    assert exit_code_of(caught.value) == 2
    assert nix.calls == []


def test_damaged_memory_is_no_memory(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    made(request_)
    (file,) = (cache_dir() / "nixos-requests").glob("*.json")
    file.write_text("{")
    assert not locate_nixos(request_).built
    made(request_)
    assert locate_nixos(request_).built


def test_no_nix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request_: ImageRequest) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="`nix-build` is not on PATH"):
        made(request_)


def test_cache_is_private(nix: FakeNix, path: Path, request_: ImageRequest) -> None:
    made(request_)
    (file,) = (cache_dir() / "nixos-requests").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700

"""Build the NixOS image: an entry of the image store that points to what `nix-build` made.

::

    request ── parse_source, resolve ──> nixpkgs ─┐
    modules, store paths ──> spec (JSON) ─────────┴─ nix-build nix/ -A image ──> /nix/store/<digest>-...
                                                                                   │
    images/<digest>/  manifest.json, links to the files there, gc-root ────────────┘
    nixos-requests/<hash of the request>.json   which image that gave, and what it was made from

`gc-root` is a link to the store path and a root of Nix's garbage collector for as long as it is there: the store path
lives as long as the image does.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vmrunner.events import Emit, Note, Phase, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.nix_store import store_directory
from vmrunner.host.paths import data_dir, images_dir
from vmrunner.image import store
from vmrunner.image.bootstrap import full_disk_named
from vmrunner.image.manifest import Image, Located, Manifest
from vmrunner.image.nixos.entry import enter, sound
from vmrunner.image.nixos.inputs import Inputs, record, unchanged
from vmrunner.image.nixos.nix_build import add_root, build
from vmrunner.image.nixos.nixpkgs import Nixpkgs, resolve
from vmrunner.image.nixos.request import Wanted, requests_directory, settle
from vmrunner.image.request import ImageRequest

PHASE: Final = "build"
_ATTRIBUTE: Final = "image"
_SYSTEM: Final = "x86_64-linux"
# What `vmrunner plan` shows of an image that nobody has evaluated yet.
_UNKNOWN: Final = "<built by Nix>"


class _Remembered(BaseModel, frozen=True, extra="forbid"):
    """Which image a request gave the last time."""

    digest: str
    inputs: Inputs


def locate_nixos(request: ImageRequest) -> Located:
    """The image that the request gave, if all that it was made from is unchanged; Nix evaluates nothing for that.

    Otherwise nobody knows which image it will be, and the manifest has stand-ins. Raises ConfigError for an impossible
    request, HostError where there is no Nix.
    """
    image = _remembered(settle(request))
    if image is not None:
        return Located(image, built=True)
    promised = Manifest(
        name="nixos",
        digest=_UNKNOWN,
        architecture="x86_64",
        kernel="bzImage",
        initrd="initrd",
        kernel_command_line=_UNKNOWN,
        root_disk="root.img",
        root_disk_format="raw",
        root_disk_size=1,
        init=_UNKNOWN,
        systemd_version="",
        glibc=None,
        nextest=None,
        interpreters=(),
        built_from={},
        created="",
        files={},
    )
    return Located(Image(store.image_directory(_UNKNOWN), promised), built=False)


def build_nixos(request: ImageRequest, *, emit: Emit, deadline: Deadline, fresh: bool = False) -> Image:
    """The image of the request: from the store where nothing changed, else built by Nix, which may take long.

    With `fresh` Nix evaluates in any case. Raises ConfigError for an impossible request, HostError where there is no Nix,
    ImageBuildFailed where it fails, RunTimeout; then, and when it is interrupted, nothing is left that looks like an
    image.
    """
    wanted = settle(request)
    if not fresh and (image := _remembered(wanted)):
        return image
    waited = False

    def on_wait() -> None:
        nonlocal waited
        waited = True
        emit(Note("another vmrunner is building this image; waiting for it"))

    with store.build_lock(f"nixos-{wanted.key}", deadline=deadline, on_wait=on_wait):
        # Where another one built it meanwhile, it has just been evaluated.
        if waited and (image := _remembered(wanted)):
            return image
        store.remove_leftovers()
        _forget_gone_images()
        with phase(emit, PHASE, "Building the NixOS image") as current:
            with full_disk_named(images_dir()):
                image = _build(wanted, current, deadline)
            current.text = f"image {image.manifest.digest[:12]}"
    return image


def _build(wanted: Wanted, current: Phase, deadline: Deadline) -> Image:
    nixpkgs = resolve(
        wanted.source, nix=wanted.nix, scratch=wanted.file(".source.json"), current=current, deadline=deadline
    )
    spec = {
        "nixpkgs": str(nixpkgs.path),
        "revision": nixpkgs.revision,
        "system": _SYSTEM,
        "modules": [str(path) for path in wanted.modules],
        "storePaths": list(wanted.store_paths),
    }
    with _spec_file(wanted, spec) as file, _kept(wanted, nixpkgs.path, deadline) as out_link:
        began = time.time()
        result = build(
            data_dir("nix"),
            attribute=_ATTRIBUTE,
            arguments={"spec": str(file)},
            out_link=out_link,
            current=current,
            deadline=deadline,
            foreign=(nixpkgs.path,),
        )
        image = enter(result.path, current=current, deadline=deadline)
        _remember(wanted, image, result.files_read, nixpkgs, began=began)
    return image


@contextmanager
def _spec_file(wanted: Wanted, spec: Mapping[str, object]) -> Iterator[Path]:
    file = wanted.file(".spec.json")
    try:
        write_atomically(file, json.dumps(spec))
        yield file
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _kept(wanted: Wanted, nixpkgs: Path, deadline: Deadline) -> Iterator[Path]:
    """Where nix-build may put its link; nixpkgs is not garbage-collected while the block runs."""
    out_link, nixpkgs_link = wanted.file(".result"), wanted.file(".nixpkgs")
    try:
        if nixpkgs.is_relative_to(store_directory()):
            add_root(_store_path(nixpkgs), nixpkgs_link, deadline=deadline)
        yield out_link
    finally:
        out_link.unlink(missing_ok=True)
        nixpkgs_link.unlink(missing_ok=True)


def _store_path(path: Path) -> Path:
    """The path of the store that `path` is or lies in."""
    return store_directory() / path.relative_to(store_directory()).parts[0]


def _remembered(wanted: Wanted) -> Image | None:
    """The image that this request gave the last time, if it still would."""
    try:
        found = _Remembered.model_validate_json(wanted.file(".json").read_bytes())
    except (OSError, ValidationError):
        return None
    if not unchanged(found.inputs, nix=wanted.nix.text, request=wanted.facts):
        return None
    return sound(found.digest)


def _remember(
    wanted: Wanted, image: Image, files_read: frozenset[Path] | None, nixpkgs: Nixpkgs, *, began: float
) -> None:
    inputs = record(
        nix=wanted.nix.text,
        request=wanted.facts,
        nixpkgs=nixpkgs.model_dump(mode="json"),
        files_read=files_read,
        watched=wanted.watched,
        store=store_directory(),
        began=began,
    )
    file = wanted.file(".json")
    if inputs is None:
        file.unlink(missing_ok=True)
        return
    # A disk that is full or read-only costs the next run an evaluation, and this one nothing.
    with contextlib.suppress(OSError):
        write_atomically(file, _Remembered(digest=image.manifest.digest, inputs=inputs).model_dump_json())


def _forget_gone_images() -> None:
    """Remove what is remembered of images that were pruned."""
    for file in requests_directory().glob("*.json"):
        with contextlib.suppress(OSError, ValidationError):
            digest = _Remembered.model_validate_json(file.read_bytes()).digest
            if not os.path.lexists(store.image_directory(digest)):
                file.unlink()

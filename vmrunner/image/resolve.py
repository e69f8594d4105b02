"""From what a user asked for to an image that can be booted."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import replace
from pathlib import Path

from vmrunner.config.checks import IMAGE_NAMES
from vmrunner.errors import ConfigError, ImageNotFound
from vmrunner.events import Emit, Note
from vmrunner.host.deadline import Deadline
from vmrunner.image.debian import build_debian, locate_debian
from vmrunner.image.manifest import Image, Located, open_image
from vmrunner.image.nixos.build import build_nixos, locate_nixos
from vmrunner.image.request import ImageRequest


def resolve_image(request: ImageRequest, *, fresh: bool = False, emit: Emit, deadline: Deadline) -> Image:
    """The image that was asked for, built where there is none yet.

    `fresh`: a nixos image is evaluated again, whatever is remembered of the last time. Raises ConfigError where settings
    do not go with the image, ImageNotFound, ImageDamaged, ImageBuildFailed or HostError.
    """
    settled = settle(request, emit)
    match settled.image:
        case "debian":
            return build_debian(packages=settled.packages, emit=emit, deadline=deadline)
        case "nixos":
            return build_nixos(settled, fresh=fresh, emit=emit, deadline=deadline)
        case directory:
            return open_image(Path(directory).expanduser())


def locate_image(request: ImageRequest, *, emit: Emit) -> Located:
    """The image that `resolve_image` gives; one that is not built yet, only as where and what it would be."""
    settled = settle(request, emit)
    match settled.image:
        case "debian":
            return locate_debian(packages=settled.packages)
        case "nixos":
            return locate_nixos(settled)
        case directory:
            return Located(open_image(Path(directory).expanduser()), built=True)


def settle(request: ImageRequest, emit: Emit) -> ImageRequest:
    """The request with `auto` decided, and said why.

    Raises ImageNotFound for a word that names no image, ConfigError for settings that the image has no use for.
    """
    if request.image == "auto":
        kind, reason = _choice()
        emit(Note(f"image: {kind} ({reason})"))
        settled = replace(request, image=kind)
    else:
        settled, reason = request, ""
    if not _is_directory(settled.image) and settled.image not in IMAGE_NAMES:
        nearest = difflib.get_close_matches(settled.image, IMAGE_NAMES, n=1)
        raise ImageNotFound(
            f"there is no image {settled.image!r}",
            hint=f"did you mean `{nearest[0]}`?" if nearest else "use auto, debian, nixos or a directory",
        )
    _check_settings(settled, reason, emit)
    return settled


def _choice() -> tuple[str, str]:
    if shutil.which("nix-build"):
        return "nixos", "nix-build is on PATH"
    return "debian", "there is no nix-build on PATH"


def _check_settings(request: ImageRequest, reason: str, emit: Emit) -> None:
    """Refuse what would silently do nothing: the tests would miss what it was to bring.

    An image that was built already is another matter: it may well have been built with these very settings.
    """
    useless = [
        name
        for name, given, kind in (
            ("packages", request.packages, "debian"),
            ("modules", request.modules, "nixos"),
            ("nixpkgs", request.nixpkgs, "nixos"),
        )
        if given and request.image != kind
    ]
    if not useless:
        return
    name = useless[0]
    if _is_directory(request.image):
        emit(Note(f"`{name}` changes nothing: the image {request.image} is built already", "warning"))
        return
    kind = f"{request.image}{f' ({reason})' if reason else ''}"
    if name == "packages":
        raise ConfigError(
            f"`packages` are Debian packages, but the image is {kind}",
            hint="use `--image debian`; a nixos image takes `environment.systemPackages` in a file of `modules`",
        )
    raise ConfigError(
        f"`{name}` is for a nixos image, but the image is {kind}",
        hint="use `--image nixos`, which needs nix-build on PATH",
    )


def _is_directory(image: str) -> bool:
    return "/" in image or Path(image).is_dir()

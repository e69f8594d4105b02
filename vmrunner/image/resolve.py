"""From what a user wrote after `--image` to an image that can be booted."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import Final

from vmrunner.errors import ImageNotFound
from vmrunner.events import Emit, Note
from vmrunner.host.deadline import Deadline
from vmrunner.image.debian import Located, build_debian, locate_debian
from vmrunner.image.manifest import Image, open_image

IMAGE_NAMES: Final = ("auto", "debian", "nixos")


def resolve_image(image: str, *, packages: tuple[str, ...], emit: Emit, deadline: Deadline) -> Image:
    """The image that `image` names, built where there is none yet.

    `image` is `auto`, `debian`, `nixos` or a directory; `packages` are Debian packages to add to a built one.
    Raises ImageNotFound, ImageDamaged, ImageBuildFailed or HostError.
    """
    if _is_directory(image):
        return open_image(Path(image).expanduser())
    _settle_name(image, emit)
    return build_debian(packages=packages, emit=emit, deadline=deadline)


def locate_image(image: str, *, packages: tuple[str, ...], emit: Emit) -> Located:
    """The image that `resolve_image` gives; one that is not built yet, only as where and what it would be."""
    if _is_directory(image):
        return Located(open_image(Path(image).expanduser()), built=True)
    _settle_name(image, emit)
    return locate_debian(packages=packages)


def _is_directory(image: str) -> bool:
    return "/" in image or Path(image).is_dir()


def _settle_name(image: str, emit: Emit) -> None:
    """Raise ImageNotFound unless `image` names the Debian image; say so where it was chosen by `auto`."""
    match image:
        case "debian":
            return
        case "auto":
            emit(Note(_why_debian()))
        case "nixos":
            raise ImageNotFound("this version cannot build the nixos image yet", hint="use `--image debian`")
        case _:
            nearest = difflib.get_close_matches(image, IMAGE_NAMES, n=1)
            raise ImageNotFound(
                f"there is no image {image!r}",
                hint=f"did you mean `{nearest[0]}`?" if nearest else "use auto, debian, nixos or a directory",
            )


def _why_debian() -> str:
    if shutil.which("nix-build"):
        return "image: debian (nix-build is here, but this version cannot build the nixos image yet)"
    return "image: debian (there is no nix-build on PATH)"

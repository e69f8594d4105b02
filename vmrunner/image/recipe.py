"""A recipe: the YAML file that says how an image is made, and the digest of all that goes into one."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, Field, ValidationError

from vmrunner.config.units import Size
from vmrunner.errors import ImageBuildFailed, ImageNotFound
from vmrunner.host.paths import data_dir
from vmrunner.image.manifest import FORMAT_VERSION

ARCHITECTURE: Final = "x86_64"
# Raise it whenever the builder's code makes another image out of the same recipe.
BUILDER_VERSION: Final = 3
GUEST_TREE: Final = "guest"
# Debian Policy 5.6.1.
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """How a Debian image is made; images/debian.yaml explains each choice."""

    name: str
    suite: str
    sources: tuple[str, ...] = Field(min_length=1)
    keyring: str
    packages: tuple[str, ...]
    root_disk_size: Size
    kernel_command_line: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    enable: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="target -> units it wants")
    unwant: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="target -> units it does not"
    )
    mask: tuple[str, ...] = ()
    mask_generators: tuple[str, ...] = ()
    finish: str = Field("", description="shell lines run in the new system")


@dataclass(frozen=True)
class GuestFile:
    """One file that every image carries. `path` is relative to the guest's root."""

    path: str
    mode: int
    content: bytes


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises ImageNotFound where there is none or it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(content)
    except FileNotFoundError as error:
        raise ImageNotFound(
            f"there is no recipe {path}", hint="vmrunner is not installed completely; install it again"
        ) from error
    except yaml.YAMLError as error:
        raise ImageNotFound(f"the recipe {path} is not YAML", details=str(error)) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ImageNotFound(
            f"the recipe {path} has a bad entry: {problems[0]}", details="\n".join(problems)
        ) from error


def debian_recipe() -> Recipe:
    """The recipe that travels with vmrunner."""
    return load_recipe(data_dir("images") / "debian.yaml")


def guest_files(tree: Path) -> list[GuestFile]:
    """All files below `tree`, by path.

    A mode is 0755 or 0644, whatever the umask of whoever unpacked them.
    """
    return [
        GuestFile(
            path=file.relative_to(tree).as_posix(),
            mode=0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644,
            content=file.read_bytes(),
        )
        for file in sorted(tree.rglob("*"))
        if file.is_file()
    ]


def check_package_names(packages: Iterable[str]) -> None:
    """Raise ImageBuildFailed for what cannot be a package's name, before apt takes it for something else."""
    for name in packages:
        if not _PACKAGE.fullmatch(name):
            raise ImageBuildFailed(
                f"{name!r} is not the name of a Debian package",
                hint="`packages:` of vmrunner.yaml takes names such as postgresql or iproute2",
            )


def image_digest(recipe: Recipe, *, files: list[GuestFile], packages: tuple[str, ...]) -> str:
    """The name of the image that is made from these: SHA-256 in hex.

    Time and the versions that the mirror has are not part of it: an image is not made again because Debian
    moved on.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "builder_version": BUILDER_VERSION,
        "architecture": ARCHITECTURE,
        "recipe": recipe.model_dump(mode="json"),
        "packages": sorted(set(packages)),
        "files": [[file.path, file.mode, hashlib.sha256(file.content).hexdigest()] for file in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

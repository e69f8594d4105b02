"""Which image is booted, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from vmrunner.config import checks
from vmrunner.config.option import Option
from vmrunner.config.settings.types import FilePath, Settings

PackageName = Annotated[str, AfterValidator(checks.package_name)]


class ImageSettings(Settings):
    """The image."""

    image: Annotated[
        Literal["auto", "debian", "nixos"] | FilePath,
        BeforeValidator(checks.image_name, json_schema_input_type=Literal["auto", "debian", "nixos"] | str),
        Option("image", "IMAGE", "what to boot: auto (nixos where nix-build is on PATH, else debian), debian, "
               "nixos, or the directory of an image"),
    ] = "auto"  # fmt: skip
    packages: Annotated[
        tuple[PackageName, ...],
        Option("image", "NAME", "a Debian package to add to the debian image"),
    ] = ()
    modules: Annotated[
        tuple[FilePath, ...],
        Option("image", "FILE", "a NixOS module to add to the nixos image"),
    ] = ()
    nixpkgs: Annotated[
        str | Path | None,
        BeforeValidator(checks.path_or_hashed_url, json_schema_input_type=str | None),
        Option("image", "NIXPKGS", "the nixpkgs that the nixos image is made of: its directory, that of npins, or "
               "URL#HASH of a tarball; without one it is vmrunner's own pin"),
    ] = None  # fmt: skip

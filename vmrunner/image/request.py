"""Which image a user wants, out of all the settings: what decides what is in it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmrunner.config.model import Config


@dataclass(frozen=True)
class ImageRequest:
    """One image, by what it is made from.

    `image` is `auto`, `debian`, `nixos` or a directory. `packages` are Debian packages for the debian image; `modules`
    NixOS modules, `nixpkgs` a directory or a URL with its hash (None: vmrunner's own pin), and `store_paths` paths of
    this host's Nix store to copy, for the nixos image.
    """

    image: str
    packages: tuple[str, ...] = ()
    modules: tuple[Path, ...] = ()
    nixpkgs: str | None = None
    store_paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, *, store_paths: tuple[str, ...] = ()) -> ImageRequest:
        """What the settings ask for."""
        nixpkgs = None if config.nixpkgs is None else str(config.nixpkgs)
        return cls(str(config.image), config.packages, config.modules, nixpkgs, store_paths)

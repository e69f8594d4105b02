"""A request for a NixOS image: what was asked for, what that means on this computer, and its files in the cache."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.host.deadline import Deadline
from vmrunner.host.nix_store import store_directory
from vmrunner.host.paths import cache_dir, data_dir, private
from vmrunner.image.nixos.nix_build import NixVersion, nix_version, program
from vmrunner.image.nixos.nixpkgs import NpinsSource, Source, parse_source
from vmrunner.image.request import ImageRequest

_VERSION_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Wanted:
    """A request with its paths resolved, and the Nix that is to build it."""

    modules: tuple[Path, ...]
    source: Source
    store_paths: tuple[str, ...]
    nix: NixVersion

    @property
    def facts(self) -> dict[str, object]:
        """What tells this request from another, as JSON has it."""
        return {
            "modules": [str(path) for path in self.modules],
            "nixpkgs": str(self.source),
            "store_paths": list(self.store_paths),
            "store": str(store_directory()),
            "expressions": str(data_dir("nix")),
        }

    @property
    def key(self) -> str:
        """The facts in a few characters."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]

    def file(self, suffix: str) -> Path:
        """A file of this request in the cache."""
        return requests_directory() / f"{self.key}{suffix}"

    @property
    def watched(self) -> tuple[Path, ...]:
        """Files that decide the result although Nix need not say that it read them."""
        return (*self.modules, *(self.source.files if isinstance(self.source, NpinsSource) else ()))


def settle(request: ImageRequest) -> Wanted:
    """Resolve all that is named. Raises ConfigError where something is not there, HostError where there is no Nix."""
    nix = nix_version(deadline=Deadline.after(_VERSION_SECONDS))
    for name in ("nix-instantiate", "nix-store"):
        program(name)
    modules = tuple(_module(path.expanduser()) for path in request.modules)
    source = parse_source(request.nixpkgs, directory=Path.cwd())
    return Wanted(modules, source, tuple(sorted(set(request.store_paths))), nix)


def _module(path: Path) -> Path:
    # Path.resolve raises where links lead round in a circle.
    real = Path(os.path.realpath(path))
    if real.is_file() or (real / "default.nix").is_file():
        return real
    what = "has no default.nix" if real.is_dir() else "is no file" if real.exists() else "does not exist"
    raise ConfigError(
        f"`modules` names {path}, which {what}", hint="paths in vmrunner.yaml are relative to its directory"
    )


def requests_directory() -> Path:
    """Where the files of all requests are."""
    return private(cache_dir() / "nixos-requests")

"""nix/image.nix, evaluated: the part of the manifest that is known before anything is built."""

from __future__ import annotations

import json
import re
from typing import Any

from nix_values import SAMPLES, Values

from vmrunner.image.manifest import Manifest


def manifest_of(values: dict[str, Any]) -> Manifest:
    """What becomes of the part that is known before the build, with what the builder adds."""
    files = {
        name: {"size": 1, "sha256": "0" * 64}
        for name in (values["kernel"], values["initrd"], values["root_disk"])
    }
    added = {"digest": "0" * 32, "root_disk_size": 1, "files": files, "libraries": [], "store_paths": []}
    return Manifest.model_validate_json(json.dumps({**values, **added}))


def test_the_manifest_is_one_that_vmrunner_reads(nix_values: Values) -> None:
    manifest = manifest_of(nix_values["manifest"]["plain"])
    assert (manifest.name, manifest.architecture, manifest.root_disk_format) == ("nixos", "x86_64", "raw")
    assert (manifest.kernel, manifest.initrd, manifest.root_disk) == ("bzImage", "initrd", "root.img")
    assert manifest.glibc == "2.41"
    assert manifest.nextest == "0.9"


def test_the_manifest_starts_the_system_that_it_is_of(nix_values: Values) -> None:
    manifest = manifest_of(nix_values["manifest"]["plain"])
    *words, init = manifest.kernel_command_line.split()
    assert init == f"init={manifest.init}"
    assert re.fullmatch(r"/\S+-nixos-system/init", manifest.init)
    assert words == nix_values["guest"]["plain"]["kernelParams"]


def test_the_manifest_says_what_it_was_built_from(nix_values: Values) -> None:
    plain, user = (nix_values["manifest"][name]["built_from"] for name in ("plain", "user"))
    assert plain["nixpkgs"].endswith("/nixpkgs-stand-in")
    assert plain["nixpkgs_version"] == "26.11"
    assert "nixpkgs_revision" not in plain
    assert (plain["modules"], user["modules"]) == ("", str(SAMPLES / "user.nix"))


def test_the_same_inputs_give_the_same_manifest(nix_values: Values) -> None:
    assert manifest_of(nix_values["manifest"]["plain"]).created == "1970-01-01T00:00:01+00:00"

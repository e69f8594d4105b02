"""A nextest run without a project: one package whose one test binary is a shell script with one test that passes.

A template's guest runs it once before it is saved, so that everything between systemd and a test's end has been read,
linked and cached, and nothing of any project has. A test binary is whatever answers `--list` as libtest does
(nexte.st/docs/design/custom-test-harnesses).
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

BINARIES_METADATA = "binaries-metadata.json"
CARGO_METADATA = "cargo-metadata.json"
TEST_BINARY = "rehearsal"
MANIFEST = "Cargo.toml"

_PACKAGE = "rehearsal"
_TRIPLE = "x86_64-unknown-linux-gnu"
_SCRIPT = """#!/bin/sh
case "$*" in
*--ignored*) ;;
*--list*) echo "it_runs: test" ;;
esac
"""


def rehearsal_files(directory: PurePosixPath) -> dict[str, str]:
    """The files of the workspace, by name, for a guest that has them in `directory`; TEST_BINARY is to be executable."""
    return {
        MANIFEST: f'[package]\nname = "{_PACKAGE}"\nversion = "0.0.0"\nedition = "2021"\n',
        TEST_BINARY: _SCRIPT,
        BINARIES_METADATA: json.dumps(_binaries_metadata(directory)),
        CARGO_METADATA: json.dumps(_cargo_metadata(directory)),
    }


def _package_id(directory: PurePosixPath) -> str:
    return f"path+file://{directory}#{_PACKAGE}@0.0.0"


def _binaries_metadata(directory: PurePosixPath) -> dict[str, object]:
    platform = {"triple": _TRIPLE, "target-features": "unknown"}
    return {
        "rust-build-meta": {
            "target-directory": str(directory),
            "base-output-directories": [],
            "non-test-binaries": {},
            "build-script-out-dirs": {},
            "build-script-info": {},
            "linked-paths": [],
            "platforms": {
                "host": {"platform": platform, "libdir": {"status": "unavailable", "reason": "rustc-failed"}},
                "targets": [],
            },
            "target-platforms": [platform],
            "target-platform": None,
        },
        "rust-binaries": {
            _PACKAGE: {
                "binary-id": _PACKAGE,
                "binary-name": _PACKAGE,
                "package-id": _package_id(directory),
                "kind": "lib",
                "binary-path": str(directory / TEST_BINARY),
                "build-platform": "target",
            }
        },
    }


def _cargo_metadata(directory: PurePosixPath) -> dict[str, object]:
    identity = _package_id(directory)
    target = {
        "kind": ["lib"],
        "crate_types": ["lib"],
        "name": _PACKAGE,
        "src_path": str(directory / "lib.rs"),
        "edition": "2021",
        "doc": False,
        "doctest": False,
        "test": True,
    }
    package: dict[str, object] = {
        "name": _PACKAGE,
        "version": "0.0.0",
        "id": identity,
        "source": None,
        "dependencies": [],
        "targets": [target],
        "features": {},
        "manifest_path": str(directory / MANIFEST),
        "edition": "2021",
    }
    return {
        "packages": [package],
        "workspace_members": [identity],
        "workspace_default_members": [identity],
        "resolve": {
            "nodes": [{"id": identity, "dependencies": [], "deps": [], "features": []}],
            "root": identity,
        },
        "target_directory": str(directory),
        "version": 1,
        "workspace_root": str(directory),
        "metadata": None,
    }

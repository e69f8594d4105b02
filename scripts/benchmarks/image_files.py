"""The image that `vmrunner test` uses for the crate, and the files inside of its root disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import NotMeasured, timed
from benchmarks.suite_runs import CRATE, VMRUNNER


@dataclass(frozen=True)
class ImageFiles:
    """A built image with an ext4 root disk; `kernel_release` is what `uname -r` says in it."""

    directory: Path
    digest: str
    kernel: Path
    kernel_release: str
    root_disk: Path


def image_of_crate() -> ImageFiles:
    """The image, built where there is none yet.

    Raises NotMeasured where it is not one whose root disk debugfs can read, or whose kernel is not named.
    """
    shown = json.loads(timed([VMRUNNER, "image", "show"], cwd=CRATE).stdout)
    release = shown["built_from"].get("kernel")
    if shown["root_disk_format"] != "raw" or not release:
        raise NotMeasured(f"the image {shown['name']} is not one that comparisons can be made with")
    directory = Path(shown["directory"])
    return ImageFiles(
        directory=directory,
        digest=shown["digest"],
        kernel=directory / shown["kernel"],
        kernel_release=release,
        root_disk=directory / shown["root_disk"],
    )


def copy_out(image: ImageFiles, *, files: Sequence[str], trees: Sequence[str], destination: Path) -> None:
    """Copy `files` and whole directories (`trees`), absolute paths in the image, into the directory `destination`.

    debugfs(8) reads the file system without root and without mounting it; it ends with 0 whatever happens, so what
    should have come is looked for. Raises NotMeasured where something is missing.
    """
    destination.mkdir(parents=True, exist_ok=True)
    requests = [f"dump -p {path} {destination / Path(path).name}" for path in files]
    requests += [f"rdump {path} {destination}" for path in trees]
    script = destination / "debugfs-requests"
    script.write_text("\n".join(requests) + "\n")
    timed([find_debugfs(), "-f", script, image.root_disk])
    script.unlink()
    for path in (*files, *trees):
        if not (destination / Path(path).name).exists():
            raise NotMeasured(f"{path} could not be read from {image.root_disk}")


def forget_others(kept: Path, *, prefix: str) -> None:
    """Remove what was made from other images: the directories beside `kept` whose names begin with `prefix`."""
    for directory in kept.parent.glob(f"{prefix}*"):
        if directory != kept:
            shutil.rmtree(directory)


def find_debugfs() -> Path:
    """Debugfs, which is not on an ordinary user's PATH in Debian. Raises NotMeasured where there is none."""
    for directory in ("/usr/sbin", "/sbin", "/usr/bin"):
        if (path := Path(directory) / "debugfs").exists():
            return path
    raise NotMeasured("`debugfs` is not installed: install e2fsprogs")

"""Build the Debian image: mmdebstrap makes a system, a disk image and an initrd are made out of it.

::

    mmdebstrap ──> system.tar ─┐
    images/guest, recipe ──> overlay.tar ─┴─ tar ──> tree/ ─┬─ mke2fs -d, debugfs ──> root.img
                                                            ├─ kernel, modules ──> vmlinux, initrd
                                                            └─ dpkg status ──> manifest.json

The steps are the same for root and for an ordinary user; owners go from system.tar to root.img without the
tree.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vmrunner.events import Emit, Note, Phase, phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import remove_tree
from vmrunner.host.paths import data_dir, images_dir
from vmrunner.host.process import run_command
from vmrunner.image import bootstrap, store
from vmrunner.image.initrd import kernel_release, make_initrd
from vmrunner.image.kernel import vmlinux_of
from vmrunner.image.manifest import FileRecord, Image, Located, Manifest, open_image, record, write_manifest
from vmrunner.image.overlay import overlay_tar, unwanted_links
from vmrunner.image.owners import owners_in, set_owners
from vmrunner.image.prerequisites import BuildMode, build_mode, check_free_space, check_tools, tool_path
from vmrunner.image.recipe import (
    ARCHITECTURE,
    GUEST_TREE,
    GuestFile,
    Recipe,
    check_package_names,
    debian_recipe,
    guest_files,
    image_digest,
)
from vmrunner.image.system import installed_packages, interpreters, libraries, version_of

INIT: Final = "/usr/lib/systemd/systemd"
ROOT_DEVICE: Final = "/dev/vda"
ROOT_TYPE: Final = "ext4"
_KERNEL: Final = "vmlinux"
_INITRD: Final = "initrd"
_ROOT_DISK: Final = "root.img"
_PACKAGE_LIST: Final = "packages.txt"
_UNPACK: Final = ("--extract", "--preserve-permissions", "--no-same-owner")
_LABEL: Final = "vmrunner-root"
PHASE: Final = "build"


@dataclass(frozen=True)
class _Build:
    """One build under way: what is wanted, and where its parts lie."""

    recipe: Recipe
    files: list[GuestFile]
    packages: tuple[str, ...]
    digest: str
    directory: Path
    deadline: Deadline
    phase: Phase

    @property
    def tree(self) -> Path:
        """The unpacked system."""
        return self.scratch / "tree"

    @property
    def system_tar(self) -> Path:
        """What mmdebstrap wrote."""
        return self.scratch / "system.tar"

    @property
    def scratch(self) -> Path:
        """Files that only the build needs."""
        return self.directory / "scratch"


def locate_debian(*, packages: tuple[str, ...]) -> Located:
    """The Debian image with `packages` added, without building it. Raises what `open_image` does."""
    recipe, _, digest = _inputs(packages)
    directory = store.image_directory(digest)
    if directory.is_dir():
        return Located(open_image(directory), built=True)
    promised = Manifest(
        **_recipe_fields(recipe, digest, packages),
        systemd_version="",
        glibc=None,
        interpreters=(),
        created="",
        files={},
    )
    return Located(Image(directory, promised), built=False)


def build_debian(*, packages: tuple[str, ...], emit: Emit, deadline: Deadline) -> Image:
    """The Debian image with `packages` added: from the store, else built, which takes minutes.

    Raises HostError where this computer lacks what a build needs, ImageBuildFailed where the build fails;
    then, and when it is interrupted, nothing is left that looks like an image.
    """
    recipe, files, digest = _inputs(packages)
    target = store.image_directory(digest)
    if target.is_dir():
        return open_image(target)

    def on_wait() -> None:
        emit(Note("another vmrunner is building this image; waiting for it"))

    with store.build_lock(digest, deadline=deadline, on_wait=on_wait):
        if target.is_dir():
            return open_image(target)
        store.remove_leftovers()
        check_tools(recipe.keyring)
        mode = build_mode(deadline)
        check_free_space(images_dir(), mode)
        with (
            phase(emit, PHASE, "Building the Debian image (once; it takes some minutes)") as current,
            store.build_directory(digest) as directory,
        ):
            build = _Build(recipe, files, packages, digest, directory, deadline, current)
            with bootstrap.full_disk_named(directory):
                _make(build, mode)
            current.text = f"image {digest[:12]} built"
    return open_image(target)


def _inputs(packages: tuple[str, ...]) -> tuple[Recipe, list[GuestFile], str]:
    """The recipe, the guest files, and the digest of the image they make with `packages`."""
    check_package_names(packages)
    recipe = debian_recipe()
    files = guest_files(data_dir("images") / GUEST_TREE)
    return recipe, files, image_digest(recipe, files=files, packages=packages)


def _recipe_fields(recipe: Recipe, digest: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """The part of the manifest that is known before the image is built."""
    return {
        "name": recipe.name,
        "digest": digest,
        "architecture": ARCHITECTURE,
        "kernel": _KERNEL,
        "initrd": _INITRD,
        "kernel_command_line": " ".join(recipe.kernel_command_line),
        "root_disk": _ROOT_DISK,
        "root_disk_format": "raw",
        "root_disk_size": recipe.root_disk_size,
        "init": INIT,
        "nextest": None,
        "built_from": {
            "recipe": f"{recipe.name} {recipe.suite}",
            "sources": "; ".join(recipe.sources),
            "packages": " ".join(sorted(set(packages))),
        },
    }


def _make(build: _Build, mode: BuildMode) -> None:
    build.scratch.mkdir()
    bootstrap.make_system(
        build.recipe,
        packages=build.packages,
        mode=mode,
        target=build.system_tar,
        deadline=build.deadline,
        current=build.phase,
    )
    _unpack(build)
    _make_root_disk(build)
    _make_kernel_and_initrd(build)
    _write_manifest(build)
    remove_tree(build.scratch)


def _unpack(build: _Build) -> None:
    build.phase.progress(0, None, text="unpacking the system")
    build.tree.mkdir()
    overlay = build.scratch / "overlay.tar"
    overlay.write_bytes(overlay_tar(build.recipe, build.files))
    for archive, options in ((build.system_tar, ()), (overlay, ("--no-overwrite-dir",))):
        run_command(
            ["tar", *_UNPACK, *options, "--directory", build.tree, "--file", archive], deadline=build.deadline
        )
    for path in unwanted_links(build.recipe):
        (build.tree / path).unlink(missing_ok=True)


def _make_root_disk(build: _Build) -> None:
    build.phase.progress(0, None, text="writing the root disk")
    disk = build.directory / _ROOT_DISK
    with disk.open("wb") as file:
        file.truncate(build.recipe.root_disk_size)
    identity = uuid.uuid5(uuid.NAMESPACE_OID, build.digest)
    run_command(
        [
            *(tool_path("mke2fs"), "-q", "-F", "-t", ROOT_TYPE, "-L", _LABEL, "-U", str(identity)),
            # Tables are zero already in a sparse file: without this the guest's kernel would write them.
            *("-E", f"hash_seed={identity},lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
            *("-d", build.tree, disk),
        ],
        deadline=build.deadline,
    )
    set_owners(
        disk,
        tree=build.tree,
        owners=owners_in(build.system_tar),
        scratch=build.scratch,
        deadline=build.deadline,
        debugfs=tool_path("debugfs"),
    )


def _make_kernel_and_initrd(build: _Build) -> None:
    build.phase.progress(0, None, text="making the kernel and the initrd")
    release = kernel_release(build.tree)
    bzimage = build.tree / "boot" / f"vmlinuz-{release}"
    (build.directory / _KERNEL).write_bytes(vmlinux_of(bzimage.read_bytes()))
    initrd = make_initrd(
        build.tree,
        modules=build.recipe.initrd_modules,
        root_device=ROOT_DEVICE,
        root_type=ROOT_TYPE,
        init=INIT,
    )
    (build.directory / _INITRD).write_bytes(initrd)


def _write_manifest(build: _Build) -> None:
    installed = installed_packages(build.tree)
    lines = "".join(f"{name} {version}\n" for name, version in sorted(installed.items()))
    (build.directory / _PACKAGE_LIST).write_text(lines)
    fields = _recipe_fields(build.recipe, build.digest, build.packages)
    fields["built_from"]["kernel"] = kernel_release(build.tree)
    manifest = Manifest(
        **fields,
        systemd_version=version_of("systemd", installed),
        glibc=version_of("libc6", installed),
        interpreters=interpreters(build.tree),
        libraries=libraries(build.tree),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={name: _recorded(build, name) for name in (_KERNEL, _INITRD, _ROOT_DISK, _PACKAGE_LIST)},
    )
    write_manifest(build.directory, manifest)


def _recorded(build: _Build, name: str) -> FileRecord:
    path = build.directory / name
    path.chmod(0o600)
    total = path.stat().st_size
    return record(
        path, lambda done: build.phase.progress(done, total, "bytes", text=f"computing the digest of {name}")
    )

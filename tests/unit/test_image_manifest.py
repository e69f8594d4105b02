"""An image is what its manifest says, or it is refused with the reason and what to do."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sample_images import write_image

from vmrunner.errors import ImageDamaged, ImageNotFound, exit_code_of
from vmrunner.image.manifest import MANIFEST_NAME, FileRecord, open_image, record


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_image(tmp_path / "image").directory


def _edit(directory: Path, **changes: Any) -> None:
    path = directory / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _damage(directory: Path) -> ImageDamaged:
    with pytest.raises(ImageDamaged) as caught:
        open_image(directory)
    assert exit_code_of(caught.value) == 21
    return caught.value


def test_good_image_opens_with_absolute_paths(directory: Path) -> None:
    image = open_image(directory)
    assert image.kernel == directory / "vmlinuz"
    assert image.initrd == directory / "initrd"
    assert image.root_disk == directory / "root.img"
    assert image.manifest.root_disk_format == "raw"


def test_label_is_the_name_and_enough_of_the_digest(directory: Path) -> None:
    _edit(directory, name="alpine", digest="0123456789abcdef" * 4)
    assert open_image(directory).label == "alpine 0123456789ab"


def test_relative_directory_gives_absolute_paths(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert open_image(Path("image")).kernel == directory / "vmlinuz"


def test_image_without_initrd_opens(directory: Path) -> None:
    _edit(directory, initrd=None)
    assert open_image(directory).initrd is None


def test_no_directory_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match="there is no image directory") as caught:
        open_image(tmp_path / "none")
    assert exit_code_of(caught.value) == 21
    assert "image list" in (caught.value.hint or "")


def test_directory_without_manifest_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageDamaged, match=r"it has no manifest\.json"):
        open_image(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "null"])
def test_manifest_that_is_none(directory: Path, text: str) -> None:
    (directory / MANIFEST_NAME).write_text(text)
    error = _damage(directory)
    assert "is not a manifest" in error.message
    assert "remove" not in (error.hint or "")


def test_only_an_image_of_our_own_store_may_be_told_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = write_image(tmp_path / "vmrunner/images/0abc").directory
    (directory / MANIFEST_NAME).write_text("{")
    error = _damage(directory)
    assert error.hint == f"remove the directory {directory}, then run `vmrunner image build`"


def test_manifest_that_is_not_text(directory: Path) -> None:
    (directory / MANIFEST_NAME).write_bytes(b"\xff\xfe")
    assert "cannot be read" in _damage(directory).message


def test_other_format_version_is_named_before_anything_else(directory: Path) -> None:
    _edit(directory, format_version=3, something_new=True)
    error = _damage(directory)
    assert "format version 3" in error.message and "reads version 2" in error.message


def test_unknown_key_is_named(directory: Path) -> None:
    _edit(directory, colour="blue")
    assert "colour" in _damage(directory).message


def test_missing_key_is_named(directory: Path) -> None:
    content = json.loads((directory / MANIFEST_NAME).read_text())
    del content["init"]
    (directory / MANIFEST_NAME).write_text(json.dumps(content))
    assert "init" in _damage(directory).message


def test_file_without_record_is_refused(directory: Path) -> None:
    _edit(directory, kernel="other")
    assert "uses other but has no record" in _damage(directory).message


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside"])
def test_file_outside_of_the_image_is_refused(directory: Path, name: str) -> None:
    files = json.loads((directory / MANIFEST_NAME).read_text())["files"]
    _edit(directory, files=files | {name: {"size": 0, "sha256": "0" * 64}})
    assert "lies outside" in _damage(directory).message


def test_missing_file(directory: Path) -> None:
    (directory / "initrd").unlink()
    error = _damage(directory)
    assert "initrd" in error.message and "No such file" in error.message


def test_other_size_names_both(directory: Path) -> None:
    (directory / "initrd").write_text("short")
    error = _damage(directory)
    assert "5 bytes" in error.message and "the manifest says 17" in error.message


def test_other_content_of_the_same_size_names_both_digests(directory: Path) -> None:
    path = directory / "initrd"
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = path.read_bytes()[::-1]
    path.write_bytes(changed)
    error = _damage(directory)
    assert "digest" in error.message and "does not match" in error.message
    assert wanted in (error.details or "")
    assert hashlib.sha256(changed).hexdigest() in (error.details or "")
    assert "--image debian" in (error.hint or "")


def test_unchanged_files_are_not_hashed_again(directory: Path) -> None:
    path = directory / "initrd"
    status = path.stat()
    with path.open("r+b") as file:  # the same inode, size and time: what only hashing could tell
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    open_image(directory)


def test_touched_file_is_hashed_once_and_then_trusted(directory: Path) -> None:
    os.utime(directory / "initrd", ns=(1, 1))
    open_image(directory)
    noted = json.loads((directory / "verified.json").read_text())
    assert noted["initrd"][1] == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"initrd": 5}'])
def test_damaged_notes_of_the_last_verification_only_cost_hashing(directory: Path, text: str) -> None:
    (directory / "verified.json").write_text(text)
    open_image(directory)
    assert json.loads((directory / "verified.json").read_text())["initrd"]


def test_replaced_file_is_found_though_its_time_is_old(directory: Path) -> None:
    path = directory / "initrd"
    status = path.stat()
    other = directory / "other"
    other.write_bytes(b"X" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    assert "does not match" in _damage(directory).message


def test_record_of_a_sparse_file_is_that_of_its_zeros(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    content = bytearray(5 << 20)
    content[3 << 20 : (3 << 20) + 4] = b"data"
    with path.open("wb") as file:
        file.seek(3 << 20)
        file.write(b"data")
        file.truncate(len(content))
    assert record(path) == FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (65 << 20) + 3])
def test_record_of_a_hole_and_of_data(tmp_path: Path, size: int) -> None:
    hole, data = tmp_path / "hole", tmp_path / "data"
    with hole.open("wb") as file:
        file.truncate(size)
    data.write_bytes(bytes(size))
    wanted = hashlib.sha256(bytes(size)).hexdigest()
    assert record(hole).sha256 == record(data).sha256 == wanted


def test_record_tells_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3))
    seen: list[int] = []
    record(path, seen.append)
    assert seen[-1] == 3

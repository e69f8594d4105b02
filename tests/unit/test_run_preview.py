"""Looking at a run without running it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_qemu import WORKS, fake_qemu
from sample_images import write_image

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError, ImageNotFound, VmrunnerError
from vmrunner.events import silent
from vmrunner.run.preview import preview_run


@pytest.fixture(autouse=True)
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer whose QEMU proves TCG; vmrunner's directories are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "bin").mkdir()
    fake_qemu(tmp_path / "bin", {"tcg max": WORKS})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def config(image: Path, **more: object) -> Config:
    return Config.model_validate({"image": str(image), "accel": "tcg", "memory": Size.parse("128M"), **more})


def test_the_arguments_are_those_of_a_run_with_stand_ins(computer: Path) -> None:
    image = write_image(computer / "image")
    preview = preview_run(config(image.directory), emit=silent)
    assert preview.image_built
    assert preview.image_directory == image.directory
    assert preview.accelerator.kind == "tcg"
    assert preview.arguments[0] == str(computer / "bin/qemu-system-x86_64")
    joined = " ".join(preview.arguments)
    for part in (
        "-name guest=<run>", "-accel tcg,thread=multi", "-m size=128M", f"-kernel {image.kernel}", "fd=<monitor>",
        "path=<run>/in,", "path=<run>/out,", "filename=<run>/overlay.qcow2,", "path=<run>/serial.log", "vmrunner.grow",
    ):  # fmt: skip
        assert part in joined


def test_it_is_the_same_twice_and_leaves_no_run_behind(computer: Path) -> None:
    settings = config(write_image(computer / "image").directory)
    assert preview_run(settings, emit=silent) == preview_run(settings, emit=silent)
    assert not (computer / "state/vmrunner/runs").exists()
    assert not (computer / "cache/vmrunner/scratch").exists()


@pytest.mark.parametrize(
    ("settings", "kind"), [({"memory": Size.parse("64T")}, ConfigError), ({}, ImageNotFound)]
)
def test_it_refuses_what_a_run_would_refuse(
    computer: Path, settings: dict[str, object], kind: type[VmrunnerError]
) -> None:
    with pytest.raises(kind):
        preview_run(config(computer / "no-image", **settings), emit=silent)

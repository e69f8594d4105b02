"""Whether a later `up` asks for the VM that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_images import write_image
from sample_vms import sample_record, use_home

from vmrunner.config.load import Loaded, load_config
from vmrunner.errors import ConfigError, exit_code_of
from vmrunner.machine.vm_record import VmRecord
from vmrunner.run.vm_settings import config_of, kept_settings, refuse_other_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path, monkeypatch)


def loaded(tmp_path: Path, **flags: object) -> Loaded:
    return load_config(directory=tmp_path, file=None, environ={}, flags=flags)


def made_with(tmp_path: Path, **flags: object) -> VmRecord:
    return sample_record(settings=kept_settings(loaded(tmp_path, **flags).config))


def test_what_was_left_at_its_default_is_not_compared(tmp_path: Path) -> None:
    refuse_other_settings(made_with(tmp_path, memory="4G", cpus="8"), loaded(tmp_path))


def test_the_same_again_is_fine(tmp_path: Path) -> None:
    flags = {"memory": "4G", "kernel_args": ("quiet",), "hostname": "db"}
    refuse_other_settings(made_with(tmp_path, **flags), loaded(tmp_path, **(flags | {"memory": "4096M"})))


def test_each_difference_is_named_with_both_values(tmp_path: Path) -> None:
    record = made_with(tmp_path, memory="4G", kernel_args=("quiet", "debug"))
    other = loaded(tmp_path, memory="2G", kernel_args=("quiet",), hostname="db", cpus="2")
    with pytest.raises(ConfigError, match="the VM `db` has other settings") as caught:
        refuse_other_settings(record, other)
    assert str(caught.value.details).splitlines() == [
        "hostname: db (--hostname), the VM has none",
        "kernel-args: quiet (--kernel-arg), the VM has quiet debug",
        "memory: 2G (--memory), the VM has 4G",
    ]
    assert "vmrunner rm db" in str(caught.value.hint)
    assert exit_code_of(caught.value) == 2


def test_a_setting_of_the_file_counts_and_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.yaml").write_text("# a comment\nmemory: 3G\n")
    with pytest.raises(ConfigError) as caught:
        refuse_other_settings(made_with(tmp_path / "nowhere", memory="2G"), loaded(tmp_path))
    assert "memory: 3G (vmrunner.yaml:2), the VM has 2G" in str(caught.value.details)


def test_what_the_vm_found_by_itself_may_be_named(tmp_path: Path) -> None:
    refuse_other_settings(made_with(tmp_path), loaded(tmp_path, accel="tcg", cpu_model="max"))
    refuse_other_settings(made_with(tmp_path, accel="tcg"), loaded(tmp_path, accel="auto"))
    with pytest.raises(ConfigError, match="other settings"):
        refuse_other_settings(made_with(tmp_path), loaded(tmp_path, accel="kvm"))


def test_the_same_image_under_another_name_is_the_same(tmp_path: Path) -> None:
    write_image(tmp_path / "image", digest="0" * 64)
    write_image(tmp_path / "other", digest="1" * 64)
    refuse_other_settings(made_with(tmp_path), loaded(tmp_path, image=str(tmp_path / "image")))
    for different in (tmp_path / "other", tmp_path / "missing"):
        with pytest.raises(ConfigError) as caught:
            refuse_other_settings(made_with(tmp_path), loaded(tmp_path, image=str(different)))
        assert f"image: {different} (--image), the VM has auto" in str(caught.value.details)


def test_how_it_starts_and_what_is_for_the_tests_may_differ(tmp_path: Path) -> None:
    other = loaded(
        tmp_path, start="booted", timeout="5s", boot_timeout="5s", env=("A=b",), hosts=("a=10.0.0.1",)
    )
    refuse_other_settings(made_with(tmp_path), other)


def test_no_secret_of_the_tests_is_kept(tmp_path: Path) -> None:
    record = made_with(tmp_path, env=("TOKEN=hunter2",), memory="3G", start="booted")
    assert "hunter2" not in record.model_dump_json()
    config = config_of(record)
    assert (str(config.memory), config.start, dict(config.env)) == ("3G", "booted", {})

"""Config: defaults, limits of every field, and that it is frozen all through."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from vmrunner.config.model import Config
from vmrunner.config.option import Group, Option
from vmrunner.config.rows import all_rows, rows_of


def complaint(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(values)
    return str(caught.value)


def test_defaults_need_nothing() -> None:
    config = Config()
    assert (config.image, config.cpus, config.memory, config.disk) == ("auto", 2, 2 * 2**30, 8 * 2**30)
    assert (config.accel, config.cpu_model, config.network) == ("auto", "auto", "restricted")
    assert (str(config.timeout), str(config.boot_timeout), config.format) == ("1h", "5m", "text")
    assert config.archive is None
    assert (config.packages, config.kernel_args, config.qemu_args, config.hosts, config.env) == (
        (),
        (),
        (),
        {},
        {},
    )


def test_config_cannot_be_changed() -> None:
    config = Config.model_validate({"hosts": {"10.0.0.1": ["a.test"]}})
    with pytest.raises(ValidationError, match="frozen"):
        config.cpus = 4  # type: ignore[misc]  # what is tested
    for mapping in (config.hosts, Config().env):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["10.0.0.2"] = ("b.test",)  # type: ignore[index]  # what is tested


def test_config_survives_json() -> None:
    config = Config.model_validate(
        {
            "memory": "3G",
            "hosts": {"::1": "a"},
            "env": {"A": None, "B": "1"},
            "image": "./img",
            "timeout": "90s",
        }
    )
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_unknown_field_is_refused() -> None:
    assert "memroy" in complaint(memroy="1G")


@pytest.mark.parametrize("size", ["0", "127M", "65T", "-1", "lots"])
@pytest.mark.parametrize("field", ["memory", "disk"])
def test_impossible_sizes(field: str, size: str) -> None:
    assert "size" in complaint(**{field: size})


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"cpus": "0"}, "greater than or equal to 1"),
        ({"cpus": "256"}, "less than or equal to 255"),
        ({"cpus": "two"}, "integer"),
        ({"accel": "hvf"}, "'auto', 'kvm' or 'tcg'"),
        ({"network": "bridge"}, "'restricted' or 'user'"),
        ({"format": "xml"}, "'text' or 'json'"),
        ({"cpu_model": ""}, "not a CPU model: ''"),
        ({"cpu_model": "-host"}, "not a CPU model: '-host'"),
        ({"cpu_model": "host -m 9G"}, "not a CPU model"),
        ({"kernel_args": ["a\nb"]}, "not a kernel argument"),
        ({"kernel_args": [""]}, "not a kernel argument: ''"),
        ({"qemu_args": ["a\0b"]}, "NUL"),
        ({"timeout": "0"}, "impossible duration: '0s'"),
        ({"boot_timeout": "721h"}, "720h at most"),
        ({"archive": ""}, "an empty path"),
        ({"image": ""}, "an empty path"),
    ],
)
def test_impossible_values(values: dict[str, Any], part: str) -> None:
    assert part in complaint(**values)


@pytest.mark.parametrize("name", ["iproute2", "g++", "libc6-dev", "python3.11"])
def test_package_names(name: str) -> None:
    assert Config.model_validate({"packages": [name]}).packages == (name,)


@pytest.mark.parametrize("name", ["a", "Postgres", "-y", "a b", "foo_bar", "foo=1.0", ".dot", "", "foo\n"])
def test_wrong_package_names(name: str) -> None:
    assert "not a Debian package name" in complaint(packages=[name])


@pytest.mark.parametrize("model", ["host", "max", "Haswell-v4", "host,pmu=off", "qemu64,+sse4.2,-avx"])
def test_cpu_models(model: str) -> None:
    assert Config.model_validate({"cpu_model": model}).cpu_model == model


@pytest.mark.parametrize("image", ["auto", "debian", "nixos"])
def test_image_names(image: str) -> None:
    assert Config.model_validate({"image": image}).image == image
    assert isinstance(Config.model_validate({"image": image}).image, str)


@pytest.mark.parametrize("image", ["./img", "/srv/img", "result", "./debian", Path("out")])
def test_image_directories(image: str | Path) -> None:
    assert Config.model_validate({"image": image}).image == Path(image)


@pytest.mark.parametrize(
    ("slip", "meant"), [("debain", "debian"), ("nixo", "nixos"), ("nix", "nixos"), ("Debian", "debian")]
)
def test_image_slip_is_no_directory(slip: str, meant: str) -> None:
    assert f"did you mean {meant}, or the directory ./{slip}?" in complaint(image=slip)


def test_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.model_validate({"archive": "~/a.tar.zst"}).archive == tmp_path / "a.tar.zst"
    assert Config.model_validate({"image": "~/img"}).image == tmp_path / "img"


def test_hosts_take_one_name_or_many() -> None:
    hosts = Config.model_validate({"hosts": {"10.0.0.1": "a.test", "fd00::2": ["b", "c_d.test"]}}).hosts
    assert hosts == {"10.0.0.1": ("a.test",), "fd00::2": ("b", "c_d.test")}


@pytest.mark.parametrize(
    "address", ["1.2.3", "1.2.3.400", "01.2.3.4", "db.test", "", "fe80::1%eth0", "::1%a\nb c", "10.0.0.0/8"]
)
def test_wrong_addresses(address: str) -> None:
    assert "an IP address" in complaint(hosts={address: ["a"]})


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\n", "a..b", ".a", "-a", "a-", "a" * 64, ".".join(["a" * 60] * 5), "10.0.0.1", "ä.test"],
)
def test_wrong_host_names(name: str) -> None:
    assert "not a host name" in complaint(hosts={"10.0.0.1": [name]})


@pytest.mark.parametrize("name", ["", "a b", "a..b", "-a", "a" * 64, "10.0.0.1"])
def test_a_hostname_is_a_host_name(name: str) -> None:
    assert "not a host name" in complaint(hostname=name)
    assert Config.model_validate({"hostname": "db-1.test"}).hostname == "db-1.test"


@pytest.mark.parametrize("value", ["shared", "random", "0123456789abcdef" * 2])
def test_machine_ids(value: str) -> None:
    assert Config.model_validate({"machine_id": value}).machine_id == value


@pytest.mark.parametrize(
    "value", ["", "own", "Random", "0123456789ABCDEF" * 2, "a" * 31, "a" * 33, "a" * 32 + "\n"]
)
def test_wrong_machine_ids(value: str) -> None:
    assert "32 lower-case hexadecimal digits" in complaint(machine_id=value)


@pytest.mark.parametrize(
    ("field", "values"),
    [("start", ("auto", "restored", "booted")), ("keep", ("never", "on-failure", "always"))],
)
def test_what_a_run_does_with_its_machine_is_one_of_three_words(field: str, values: tuple[str, ...]) -> None:
    assert getattr(Config(), field) == values[0]
    for value in values:
        assert getattr(Config.model_validate({field: value}), field) == value
    assert "'on-failure' or 'always'" in complaint(keep="on-success")
    assert "'restored' or 'booted'" in complaint(start="cold")


@pytest.mark.parametrize(
    ("shards", "bound"),
    [
        (0, "greater than or equal to 1 "),
        (-1, "greater than or equal to 1 "),
        (257, "less than or equal to 256 "),
    ],
)
def test_impossible_numbers_of_shards(shards: int, bound: str) -> None:
    assert bound in complaint(shards=shards)
    assert (Config().shards, Config.model_validate({"shards": 256}).shards) == (1, 256)


def test_an_address_without_names_is_refused() -> None:
    assert "at least 1" in complaint(hosts={"10.0.0.1": []})


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n"])
def test_wrong_variable_names(name: str) -> None:
    assert "not a variable name" in complaint(env={name: "1"})


def test_guest_env_takes_the_hosts_values_and_leaves_out_what_it_lacks() -> None:
    config = Config.model_validate({"env": {"SET": "1", "EMPTY": "", "TOKEN": None, "ABSENT": None}})
    assert config.guest_env({"TOKEN": "s3cret", "SET": "2"}) == {"SET": "1", "EMPTY": "", "TOKEN": "s3cret"}
    assert "s3cret" not in repr(config)


def test_every_field_is_one_row() -> None:
    assert [row.field for row in all_rows()] == list(Config.model_fields)
    for info in Config.model_fields.values():
        assert sum(isinstance(item, Option) for item in info.metadata) == 1


def test_names_are_derived_from_the_field() -> None:
    rows = {row.field: row for row in all_rows()}
    model = rows["cpu_model"]
    assert (model.key, model.flag, model.variable) == ("cpu-model", "--cpu-model", "VMRUNNER_CPU_MODEL")
    assert {row.field: row.flag for row in all_rows() if row.kind != "value"} == {
        "packages": "--package",
        "modules": "--module",
        "cpu_features": "--cpu-feature",
        "cpu_pin": "--cpu-pin",
        "numa_nodes": "--numa-node",
        "numa_distances": "--numa-distance",
        "disk_limits": "--disk-limit",
        "empty_disks": "--empty-disk",
        "overlay_disks": "--overlay-disk",
        "readonly_disks": "--readonly-disk",
        "forwards": "--forward",
        "host_forwards": "--host-forward",
        "qemu_args": "--qemu-arg",
        "kernel_args": "--kernel-arg",
        "kernel_modules": "--kernel-module",
        "sysctls": "--sysctl",
        "hosts": "--host",
        "env": "--env",
        "cargo_args": "--cargo-arg",
        "nextest_args": "--nextest-arg",
        "phase_timeouts": "--phase-timeout",
    }
    for name in ("key", "flag", "variable"):
        assert len({getattr(row, name) for row in all_rows()}) == len(all_rows())


def test_rows_know_what_they_take() -> None:
    rows = {row.field: row for row in all_rows()}
    assert rows["accel"].choices == ("auto", "kvm", "tcg")
    assert (rows["image"].choices, rows["image"].is_path) == (("auto", "debian", "nixos"), True)
    assert (rows["archive"].choices, rows["archive"].is_path, rows["archive"].default) == ((), True, "")
    assert (rows["memory"].default, rows["timeout"].default, rows["cpus"].default) == ("2G", "1h", "2")
    assert [rows[name].kind for name in ("cpus", "packages", "hosts", "env")] == [
        "value",
        "list",
        "mapping",
        "mapping",
    ]


def test_groups_cover_every_row_once() -> None:
    groups = get_args(Group)
    assert rows_of(*groups) == all_rows()
    assert [len(rows_of(group)) for group in groups] == [4, 3, 9, 7, 9, 9, 5, 5, 4, 4, 9]


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.key)
def test_help_is_a_sentence_without_full_stop(row: Any) -> None:
    assert row.option.help
    assert not row.option.help.endswith(".")
    assert "\n" not in row.option.help


def test_nixpkgs_is_a_directory_or_a_url_with_its_hash() -> None:
    url = "https://example.org/nixpkgs.tar.gz#sha256-" + "A" * 43 + "="
    assert Config(nixpkgs=url).nixpkgs == url
    assert Config(nixpkgs=url[:35] + "0" * 52).nixpkgs
    assert Config(nixpkgs="./npins").nixpkgs == Path("npins")
    assert Config().nixpkgs is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("https://example.org/nixpkgs.tar.gz", "without the hash"),
        ("https://example.org/nixpkgs.tar.gz#sha256-short", "without the hash"),
        ("http:// x#sha256-" + "A" * 43 + "=", "not a URL"),
        ("", "an empty path"),
        ("<nixpkgs>", "not always the same nixpkgs"),
        ("channel:nixos-25.11", "channels, NIX_PATH and flakes are not used"),
        ("github:NixOS/nixpkgs", "want a directory"),
    ],
)
def test_nixpkgs_without_a_hash_is_refused(value: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config(nixpkgs=value)

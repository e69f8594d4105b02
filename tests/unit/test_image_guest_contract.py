"""The files that every image carries keep the guest contract, as far as text can show it."""

from __future__ import annotations

import configparser

import pytest

from vmrunner.host.paths import data_dir
from vmrunner.image.recipe import GUEST_TREE, debian_recipe, guest_files

FILES = {file.path: file.content.decode() for file in guest_files(data_dir("images") / GUEST_TREE)}
UNITS = "etc/systemd/system"


class _Lists(dict[str, str]):
    """systemd's units repeat keys: values are joined by spaces."""

    def __setitem__(self, key: str, value: str) -> None:
        if key in self and isinstance(value, list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(dict_type=_Lists, strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive
    parser.read_string(FILES[f"{UNITS}/{name}"])
    return parser


def _sshd() -> dict[str, str]:
    lines = FILES["etc/ssh/sshd_config.d/vmrunner.conf"].splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def test_unit_runs_once_and_is_never_started_again() -> None:
    service = _unit("cargo-nextest.service")["Service"]
    assert (service["Type"], service["RemainAfterExit"], service["Restart"]) == ("oneshot", "yes", "no")
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("cargo-nextest", "0750")
    assert service["WorkingDirectory"] == "%S/cargo-nextest"


def test_unit_waits_for_the_network_and_brings_its_shares() -> None:
    unit = _unit("cargo-nextest.service")["Unit"]
    assert "network-online.target" in unit["After"].split()
    assert unit["Wants"] == "network-online.target"
    assert unit["RequiresMountsFor"].split() == ["/run/vmrunner/in", "/run/vmrunner/out"]


def test_unit_is_not_started_at_boot() -> None:
    assert "cargo-nextest.service" not in [
        unit for units in debian_recipe().enable.values() for unit in units
    ]
    assert not _unit("cargo-nextest.service").has_section("Install")


def test_unit_is_not_kept_from_what_tests_do() -> None:
    service = _unit("cargo-nextest.service")["Service"]
    assert not [key for key in service if key.startswith(("Private", "Protect", "Restrict", "NoNew"))]


def test_host_binaries_come_first_on_the_units_path() -> None:
    assert "Environment=PATH=/run/vmrunner/in/bin:" in FILES[f"{UNITS}/cargo-nextest.service"]


@pytest.mark.parametrize(("tag", "mode", "cache"), [("in", "ro", "loose"), ("out", "rw", "none")])
def test_shares_are_mounted_on_demand(tag: str, mode: str, cache: str) -> None:
    unit = _unit(f"run-vmrunner-{tag}.mount")
    options = unit["Mount"]["Options"].split(",")
    assert unit["Mount"]["What"] == tag
    assert unit["Mount"]["Where"] == f"/run/vmrunner/{tag}"
    assert {mode, "trans=virtio", f"cache={cache}"} <= set(options)
    assert not unit.has_section("Install")


def test_sshd_takes_keys_only_and_asks_no_resolver() -> None:
    sshd = _sshd()
    for setting in ("PasswordAuthentication", "KbdInteractiveAuthentication", "UsePAM", "UseDNS"):
        assert sshd[setting] == "no"
    assert sshd["HostKey"] == "/etc/ssh/ssh_host_ed25519_key"


def test_login_key_is_the_credential_from_the_host() -> None:
    assert _sshd()["AuthorizedKeysFile"].startswith("/run/credentials/@system/ssh.authorized_keys.root ")


def test_sshd_does_not_refuse_a_host_that_looks_whether_it_answers() -> None:
    assert _sshd()["PerSourcePenalties"] == "no"


def test_no_key_and_no_identity_is_part_of_the_shared_files() -> None:
    assert FILES["etc/machine-id"] == ""
    assert not [path for path in FILES if "authorized_keys" in path or "host_" in path]


def test_each_enabled_unit_is_a_guest_file() -> None:
    for units in debian_recipe().enable.values():
        for unit in units:
            assert f"{UNITS}/{unit}" in FILES


def test_nothing_of_the_guest_is_a_link() -> None:
    tree = data_dir("images") / GUEST_TREE
    assert not [path for path in tree.rglob("*") if path.is_symlink()]  # wheels cannot carry them

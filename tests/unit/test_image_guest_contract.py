"""The files that every image carries keep the guest contract, as far as text can show it."""

from __future__ import annotations

import configparser
import contextlib
import shlex

import pytest
from fake_sshd import answer, running_sshd

from vmrunner.guest.inbox import IN, MOUNTED_MARK, MOUNTS, OVERLAY_DIRECTORIES, RUN_SCRIPT, STATE
from vmrunner.guest.key import HOST_KEY_CREDENTIAL
from vmrunner.guest.ssh import Guest
from vmrunner.guest.unit import UnitRun
from vmrunner.host.deadline import Deadline
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


def _sshd() -> list[str]:
    """The words that start the SSH server."""
    return shlex.split(_unit("vmrunner-ssh.service")["Service"]["ExecStart"])


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


def test_unit_starts_what_waits_at_the_gate() -> None:
    assert _unit("cargo-nextest.service")["Service"]["ExecStart"] == "/bin/sh /usr/lib/vmrunner/unit"
    assert FILES["usr/lib/vmrunner/unit"].endswith(f"exec /bin/sh {IN / RUN_SCRIPT}\n")


def test_host_and_guest_mean_the_same_files() -> None:
    prepare = FILES["usr/lib/vmrunner/prepare"]
    assert f"'{MOUNTED_MARK}'" in prepare
    assert f"'{IN / MOUNTS}'" in prepare
    assert f"our $state = '{STATE}';" in prepare
    for path in {overlay.parent for overlay in OVERLAY_DIRECTORIES}:
        assert f'"{path}"'.replace(str(STATE), "$state") in prepare
    gate = "/run/vmrunner/gate"
    assert f"our $gate = '{gate}';" in prepare
    assert f"[ ! -p {gate} ] || read -r _ <{gate}\n" in FILES["usr/lib/vmrunner/unit"]
    assert f"[ ! -p {gate} ]" in started_line()


def started_line() -> str:
    """What the host has the guest's shell run for a run."""
    with running_sshd(answer()) as sshd:
        guest = Guest(sshd.endpoint, alive=lambda: None)
        guest.connect(Deadline.after(5))
        with contextlib.closing(guest):
            UnitRun(guest, deadline=Deadline.after(5))
            return sshd.commands[0]


def test_sshd_takes_keys_only_and_the_login_key_comes_from_the_host() -> None:
    program, *words = _sshd()
    assert program == "/usr/sbin/dropbear"
    assert "-s" in words
    assert words[words.index("-r") + 1] == f"/run/credentials/@system/{HOST_KEY_CREDENTIAL}"
    assert words[words.index("-D") + 1] == "/etc/dropbear/login"
    assert words[words.index("-p") + 1] == "22"


def test_sshd_is_one_process_that_systemd_follows() -> None:
    assert "-F" in _sshd()
    service = _unit("vmrunner-ssh.service")["Service"]
    assert (service["Type"], service["Restart"]) == ("exec", "on-failure")


def test_what_runs_in_a_session_outlives_sshd() -> None:
    service = _unit("vmrunner-ssh.service")["Service"]
    assert (service["KillMode"], service["SendSIGKILL"]) == ("process", "no")


def test_sshd_is_the_first_of_all_services() -> None:
    unit = _unit("vmrunner-ssh.service")["Unit"]
    assert unit["DefaultDependencies"] == "no"
    assert unit["After"] == "systemd-journald.socket"
    before = unit["Before"].split()
    for name in ("systemd-journald", "systemd-udevd", "systemd-modules-load", "systemd-sysctl"):
        assert f"{name}.service" in before
    assert "multi-user.target" in before


def test_sshd_ends_with_the_machine() -> None:
    unit = _unit("vmrunner-ssh.service")["Unit"]
    assert unit["Conflicts"] == "shutdown.target"
    assert "shutdown.target" in unit["Before"].split()


def test_sshd_is_enabled_and_its_packages_are_in_the_image() -> None:
    recipe = debian_recipe()
    assert "vmrunner-ssh.service" in recipe.enable["multi-user.target"]
    assert _unit("vmrunner-ssh.service")["Install"]["WantedBy"] == "multi-user.target"
    assert {"dropbear-bin", "openssh-sftp-server"} <= set(recipe.packages)
    assert not {"dropbear", "openssh-server"} & set(recipe.packages), "they start a server of their own"


def test_the_image_has_no_keys_only_where_they_come_from() -> None:
    lines = debian_recipe().finish.splitlines()
    assert (
        "ln -s /run/credentials/@system/ssh.authorized_keys.root /etc/dropbear/login/authorized_keys" in lines
    )
    assert not [line for line in lines if "dropbearkey" in line or "ssh-keygen" in line]


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

"""nix/guest.nix, evaluated: a NixOS guest keeps the contract that the Debian one keeps."""

from __future__ import annotations

import re
from typing import Any

import pytest
from nix_values import Values

from vmrunner.guest.key import HOST_KEY_CREDENTIAL
from vmrunner.host.paths import data_dir
from vmrunner.image.recipe import GUEST_TREE, debian_recipe, guest_files

DEBIAN = {file.path: file.content.decode() for file in guest_files(data_dir("images") / GUEST_TREE)}
UNITS = "etc/systemd/system"
ORDERED = {
    "after": "After",
    "before": "Before",
    "conflicts": "Conflicts",
    "wants": "Wants",
    "requires": "Requires",
}
LISTS = {*ORDERED.values(), "Documentation", "Environment", "RequiresMountsFor"}

Unit = dict[str, dict[str, list[str] | str]]


def debian_unit(name: str) -> Unit:
    """The settings of a unit of the Debian image, by section; those that are lists are sorted."""
    sections: dict[str, dict[str, list[str]]] = {}
    settings: dict[str, list[str]] = {}
    for line in DEBIAN[f"{UNITS}/{name}"].splitlines():
        if line.startswith("["):
            settings = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).extend(value.split() if key in LISTS else [value])
    return {
        section: {key: sorted(values) if key in LISTS else values[-1] for key, values in settings.items()}
        for section, settings in sections.items()
    }


def nixos_unit(unit: dict[str, Any], section: str, settings: dict[str, Any]) -> Unit:
    """The settings of a unit as NixOS writes them, in the same form. `settings` are those of its own `section`."""
    ordering = {key: unit[name] for name, key in ORDERED.items() if unit[name]}
    common = {"Description": unit["description"], **ordering, **unit["unitConfig"]}
    if unit.get("documentation"):
        common["Documentation"] = unit["documentation"]
    if unit.get("startLimitIntervalSec") is not None:
        common["StartLimitIntervalSec"] = unit["startLimitIntervalSec"]
    own = dict(settings)
    if unit.get("environment"):
        own["Environment"] = [f"{name}={value}" for name, value in unit["environment"].items()]
    written: Unit = {"Unit": written_settings(common), section: written_settings(own)}
    if unit["wantedBy"]:
        written["Install"] = {"WantedBy": " ".join(unit["wantedBy"])}
    return written


def written_settings(settings: dict[str, Any]) -> dict[str, list[str] | str]:
    written: dict[str, list[str] | str] = {}
    for key, value in settings.items():
        if key in LISTS:
            written[key] = sorted(value if isinstance(value, list) else value.split())
        else:
            written[key] = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return written


def nixos_service(guest: dict[str, Any], name: str) -> Unit:
    service = guest["services"][name]
    return nixos_unit(service, "Service", service["serviceConfig"])


def nixos_mount(guest: dict[str, Any], tag: str) -> Unit:
    (mount,) = [mount for mount in guest["mounts"] if mount["what"] == tag]
    settings = {key.capitalize(): mount[key] for key in ("what", "where", "type", "options")}
    return nixos_unit(mount, "Mount", {**settings, **mount["mountConfig"]})


def without(unit: Unit, *keys: str) -> Unit:
    return {
        section: {key: value for key, value in settings.items() if key not in keys}
        for section, settings in unit.items()
    }


def paths_of(unit: Unit) -> list[str]:
    """The directories on a service's PATH."""
    (found,) = [word for word in unit["Service"]["Environment"] if word.startswith("PATH=")]
    return found.removeprefix("PATH=").split(":")


@pytest.fixture
def guest(nix_values: Values) -> dict[str, Any]:
    """The guest without any module of a user's."""
    found: dict[str, Any] = nix_values["guest"]["plain"]
    return found


@pytest.fixture
def users(nix_values: Values) -> dict[str, Any]:
    """The guest with samples/user.nix."""
    found: dict[str, Any] = nix_values["guest"]["user"]
    return found


def test_the_unit_of_a_run_is_the_debian_images(guest: dict[str, Any]) -> None:
    ours, theirs = nixos_service(guest, "cargo-nextest"), debian_unit("cargo-nextest.service")
    assert without(ours, "Environment") == without(theirs, "Environment")


def test_the_unit_finds_programs_where_nixos_has_them(guest: dict[str, Any]) -> None:
    ours, theirs = nixos_service(guest, "cargo-nextest"), debian_unit("cargo-nextest.service")
    assert "HOME=/root" in ours["Service"]["Environment"]
    first, nextest, *system = paths_of(ours)
    assert first == paths_of(theirs)[0]
    assert re.search(r"-cargo-nextest-[\d.]+/bin$", nextest)
    assert system == ["/run/wrappers/bin", "/run/current-system/sw/bin"]


def test_the_hosts_nextest_can_be_chosen(nix_values: Values) -> None:
    guest = nix_values["guest"]["without_nextest"]
    assert "cargo-nextest" not in str(paths_of(nixos_service(guest, "cargo-nextest")))
    assert not [name for name in guest["packages"] if name.startswith("cargo-nextest")]
    assert nix_values["manifest"]["without_nextest"]["nextest"] is None


@pytest.mark.parametrize("tag", ["in", "out"])
def test_the_shares_are_mounted_as_in_the_debian_image(guest: dict[str, Any], tag: str) -> None:
    ours, theirs = nixos_mount(guest, tag), debian_unit(f"run-vmrunner-{tag}.mount")
    assert without(ours, "Options") == without(theirs, "Options")
    assert sorted(str(ours["Mount"]["Options"]).split(",")) == sorted(
        str(theirs["Mount"]["Options"]).split(",")
    )


def test_nothing_is_mounted_at_boot_but_the_root(guest: dict[str, Any]) -> None:
    assert guest["fileSystems"].keys() == {"/"}
    assert [mount["wantedBy"] + mount["requires"] for mount in guest["mounts"]] == [[], []]
    wanted = [
        unit for service in guest["services"].values() for unit in service["wants"] + service["requires"]
    ]
    assert not [unit for unit in wanted if unit.endswith(".mount")]


def test_the_root_is_the_first_virtio_disk_and_grows(guest: dict[str, Any]) -> None:
    root = guest["fileSystems"]["/"]
    assert (root["device"], root["fsType"], root["autoResize"]) == ("/dev/vda", "ext4", True)
    assert {"virtio_blk", "virtio_pci", "ext4"} <= {
        *guest["initrd"]["availableKernelModules"],
        *guest["initrd"]["kernelModules"],
    }


def test_the_kernel_is_told_what_the_debian_one_is_told(guest: dict[str, Any]) -> None:
    words = guest["kernelParams"]
    assert words[0] == "console=ttyS0"
    assert set(words) <= set(debian_recipe().kernel_command_line)
    assert not [word for word in words if word.startswith(("root=", "init=", "rootfstype="))]


def test_the_first_stage_is_systemds_unless_a_user_wants_the_other(
    guest: dict[str, Any], users: dict[str, Any]
) -> None:
    assert (guest["initrd"]["systemd"]["enable"], users["initrd"]["systemd"]["enable"]) == (True, False)


def test_nothing_boots_from_the_disk(guest: dict[str, Any], users: dict[str, Any]) -> None:
    assert guest["loader"]["grub"]["enable"] is False
    assert users["loader"]["grub"]["enable"] is False


def test_the_ssh_server_is_the_debian_images(guest: dict[str, Any]) -> None:
    ours, theirs = nixos_service(guest, "vmrunner-ssh"), debian_unit("vmrunner-ssh.service")
    assert without(ours, "ExecStart", "Environment", "Before") == without(theirs, "ExecStart", "Before")
    # run-lock.mount is Debian's own.
    assert {*theirs["Unit"]["Before"]} - {*ours["Unit"]["Before"]} == {"run-lock.mount"}
    our_program, *our_words = str(ours["Service"]["ExecStart"]).split()
    _, *their_words = str(theirs["Service"]["ExecStart"]).split()
    assert re.fullmatch(r".*-dropbear-[^/]*/bin/dropbear", our_program)
    assert our_words == their_words


def test_both_keys_come_from_the_host_at_boot(guest: dict[str, Any]) -> None:
    words = guest["services"]["vmrunner-ssh"]["serviceConfig"]["ExecStart"].split()
    assert words[words.index("-r") + 1] == f"/run/credentials/@system/{HOST_KEY_CREDENTIAL}"
    login = f"{words[words.index('-D') + 1]}/authorized_keys".removeprefix("/etc/")
    assert guest["etc"][login]["source"] == "/run/credentials/@system/ssh.authorized_keys.root"


def test_sessions_find_the_systems_programs(guest: dict[str, Any]) -> None:
    assert paths_of(nixos_service(guest, "vmrunner-ssh")) == [
        "/run/wrappers/bin",
        "/run/current-system/sw/bin",
    ]
    # dropbear starts OpenSSH's sftp-server, which is found below /run/current-system/sw/libexec.
    assert any(name.startswith("openssh-") for name in guest["packages"])
    assert "/libexec" in guest["pathsToLink"]


def test_the_address_is_the_debian_images(guest: dict[str, Any]) -> None:
    ours, theirs = nixos_service(guest, "vmrunner-network"), debian_unit("vmrunner-network.service")
    assert ours["Unit"] == theirs["Unit"]
    assert without(ours, "ExecStart", "Environment")["Service"] == without(theirs, "ExecStart")["Service"]
    assert re.fullmatch(r"\S+/bin/ip -batch \S+network\.batch", str(ours["Service"]["ExecStart"]))
    assert set(str(ours["Install"]["WantedBy"]).split()) == {"multi-user.target", "network-online.target"}
    assert guest["useDHCP"] is False


def test_names_are_resolved_by_files_that_can_be_mounted_over(guest: dict[str, Any]) -> None:
    debian = [line for line in DEBIAN["etc/resolv.conf"].splitlines() if not line.startswith("#")]
    assert guest["etc"]["resolv.conf"]["text"].splitlines() == debian
    assert [guest["etc"][name]["mode"] for name in ("hosts", "resolv.conf")] == ["0644", "0644"]


def test_the_guests_programs_are_where_the_host_calls_them(guest: dict[str, Any]) -> None:
    (script,) = guest["activationScripts"].values()
    assert re.search(r"ln -sfn \S+-vmrunner-guest-programs /usr/lib/vmrunner\n", script)


def test_foreign_programs_find_a_loader(nix_values: Values) -> None:
    assert nix_values["guest"]["plain"]["nixLd"] is True
    manifests = nix_values["manifest"]
    assert manifests["plain"]["interpreters"][0] == "/lib64/ld-linux-x86-64.so.2"
    assert "/lib64/ld-linux-x86-64.so.2" not in manifests["without_foreign_loader"]["interpreters"]


def test_a_users_modules_have_their_way(guest: dict[str, Any], users: dict[str, Any]) -> None:
    assert (guest["hostName"], users["hostName"]) == ("vmrunner", "db")
    assert (guest["timesyncd"]["enable"], users["timesyncd"]["enable"]) == (False, True)
    assert users["postgresql"]["enable"] is True
    assert users["hosts"] == {"52.0.56.137": ["52-0-56-137.nip.io"]}
    assert sorted(users["kernelParams"]) == sorted([*guest["kernelParams"], "mitigations=off"])
    assert sorted(users["packages"]) == sorted([*guest["packages"], "jq-1"])
    assert users["services"]["seed"]["wantedBy"] == ["multi-user.target"]


def test_a_user_adds_to_the_unit_and_can_force_what_is_set(
    guest: dict[str, Any], users: dict[str, Any]
) -> None:
    ours, theirs = guest["services"]["cargo-nextest"], users["services"]["cargo-nextest"]
    assert sorted(theirs["after"]) == sorted([*ours["after"], "seed.service"])
    assert theirs["environment"] == {**ours["environment"], "RUST_LOG": "debug"}
    assert theirs["serviceConfig"] == {**ours["serviceConfig"], "OOMPolicy": "continue"}


def test_what_the_contract_needs_is_kept_whatever_a_user_says(
    guest: dict[str, Any], users: dict[str, Any]
) -> None:
    assert users["fileSystems"]["/"] == guest["fileSystems"]["/"]
    assert users["fileSystems"]["/data"]["device"] == "/dev/vdb"


def test_nix_in_the_guest_knows_what_is_in_its_store(nix_values: Values, guest: dict[str, Any]) -> None:
    assert "vmrunner-store" not in guest["services"]
    script = nix_values["guest"]["with_nix"]["services"]["vmrunner-store"]["script"]
    assert "nix-store --load-db < /nix-path-registration" in script


@pytest.mark.parametrize("mistake", ["unknown_option", "wrong_type", "failed_assertion"])
def test_the_stand_in_refuses_what_nixos_refuses(nix_values: Values, mistake: str) -> None:
    assert nix_values["refused"][mistake] is True


def test_a_state_version_is_there_without_a_user(guest: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d\d\.\d\d", guest["stateVersion"])

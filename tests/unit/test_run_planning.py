"""From settings, image and accelerator to the plan of a machine; and refusing what this host cannot give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from sample_images import write_image

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import ConfigError, exit_code_of
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.facts import HostFacts
from vmrunner.host.qemu import Qemu
from vmrunner.machine.plan import KernelBoot, MachinePlan, RootDisk, Share, with_shares
from vmrunner.run.planning import Places, plan_machine
from vmrunner.run.requirements import check_against_host

QEMU = Qemu(Path("/usr/bin/qemu-system-x86_64"), "7.2.22")
TCG = Accelerator("tcg", "max", "TCG was asked for", "it reached 64-bit mode", ())
PLACES = Places("vmrunner-1", Path("/s/overlay"), Path("/s/in"), Path("/r/out"), Path("/r/serial.log"))
HOST = HostFacts(
    cpus=2,
    memory_total=8 << 30,
    memory_available=3 << 30,
    cache_free=1 << 40,
    state_free=1 << 40,
    distribution="Debian",
)


def plan(directory: Path, config: Config, *, store: Path | None = None, **manifest: object) -> MachinePlan:
    return plan_machine(
        config, image=write_image(directory, **manifest), qemu=QEMU, accelerator=TCG, places=PLACES,
        authorized_key="ssh-ed25519 KEY\n", store=store,
    )  # fmt: skip


def test_the_whole_plan(tmp_path: Path) -> None:
    config = Config(
        cpus=3,
        memory=Size.parse("1G"),
        disk=Size.parse("4G"),
        network="user",
        kernel_args=("quiet",),
        qemu_args=("-S",),
    )
    assert plan(tmp_path, config) == MachinePlan(
        name="vmrunner-1",
        qemu=QEMU.path,
        machine_type="pc-q35-7.2",
        accelerator="tcg",
        cpu_model="max",
        cpus=3,
        memory=Size.parse("1G"),
        boot=KernelBoot(
            tmp_path / "vmlinuz",
            tmp_path / "initrd",
            ("console=ttyS0 root=/dev/vda rw", "panic=-1", "vmrunner.grow", "quiet"),
        ),
        disk=RootDisk(PLACES.overlay, tmp_path / "root.img", "raw", Size.parse("4G")),
        network="user",
        shares=(Share("in", PLACES.inbox, readonly=True), Share("out", PLACES.out, readonly=False)),
        credentials=(("ssh.authorized_keys.root", "ssh-ed25519 KEY\n"),),
        serial_log=PLACES.serial_log,
        extra_arguments=("-S",),
        may_break_booting=True,
    )


@pytest.mark.parametrize(
    ("version", "kind", "cpus", "cpus_max", "breaks"),
    [
        ("7.2.22", "tcg", 2, None, True),
        ("8.0.5", "tcg", 2, None, True),
        ("8.1.0", "tcg", 2, None, False),
        ("10.0.2", "tcg", 2, None, False),
        ("7.2.22", "tcg", 1, None, False),
        ("7.2.22", "tcg", 1, 2, True),
        ("7.2.22", "kvm", 2, None, False),
    ],
)
def test_which_machines_may_break_while_they_boot(
    tmp_path: Path, version: str, kind: Literal["tcg", "kvm"], cpus: int, cpus_max: int | None, breaks: bool
) -> None:
    made = plan_machine(
        Config(cpus=cpus, cpus_max=cpus_max), image=write_image(tmp_path), qemu=replace(QEMU, version=version),
        accelerator=replace(TCG, kind=kind), places=PLACES, authorized_key="",
    )  # fmt: skip
    assert made.may_break_booting is breaks


def test_a_store_is_one_share_more_that_nobody_can_write_to(tmp_path: Path) -> None:
    plain, stored = plan(tmp_path, Config()), plan(tmp_path, Config(), store=Path("/nix/store"))
    assert stored.shares == (*plain.shares, Share("store", Path("/nix/store"), readonly=True))
    assert (plain.store, stored.store) == (None, Path("/nix/store"))
    moved = with_shares(stored, inbox=Path("/a"), out=Path("/b"))
    assert [share.path for share in moved.shares] == [Path("/a"), Path("/b"), Path("/nix/store")]


def test_the_same_input_gives_the_same_plan(tmp_path: Path) -> None:
    assert plan(tmp_path, Config()) == plan(tmp_path, Config())


@pytest.mark.parametrize(
    ("asked", "has", "grows", "size"),
    [
        ("2G", 2 << 30, False, "2G"),
        ("1G", 2 << 30, False, "2G"),
        ("8G", 2 << 30, True, "8G"),
        ("2G", (2 << 30) - 1, True, "2G"),
    ],
)
def test_the_guest_is_told_to_grow_only_where_the_disk_is_larger(
    tmp_path: Path, asked: str, has: int, grows: bool, size: str
) -> None:
    made = plan(tmp_path, Config(disk=Size.parse(asked)), root_disk_size=has)
    assert ("vmrunner.grow" in made.boot.command_line) is grows
    assert made.disk.size == Size.parse(size)


def test_kernel_arguments_of_the_project_come_last(tmp_path: Path) -> None:
    made = plan(tmp_path, Config(kernel_args=("panic=0", "a=b")))
    assert made.boot.command_line[-2:] == ("panic=0", "a=b")


def test_an_image_without_an_initrd(tmp_path: Path) -> None:
    made = plan(tmp_path, Config(), initrd=None)
    assert made.boot.initrd is None


def test_the_guest_cannot_write_to_what_it_is_given(tmp_path: Path) -> None:
    made = plan(tmp_path, Config())
    assert {share.tag: share.readonly for share in made.shares} == {"in": True, "out": False}
    assert made.network == "restricted"


def test_memory_that_the_host_has_is_fine() -> None:
    check_against_host(Config(memory=Size.parse("3G")), HOST)


@pytest.mark.parametrize(("shards", "cpus", "memory"), [(2, 1, "1.5G"), (1, 2, "3G"), (1, 5, "1G")])
def test_what_the_host_has_for_all_shards_together_is_fine(shards: int, cpus: int, memory: str) -> None:
    """One machine may have more processors than the host: it is only slower then."""
    check_against_host(Config(shards=shards, cpus=cpus, memory=Size.parse(memory)), HOST)


def test_more_memory_for_all_shards_than_the_host_has_is_refused_with_both_values() -> None:
    with pytest.raises(ConfigError) as caught:
        check_against_host(Config(shards=4, cpus=1, memory=Size.parse("1G")), HOST)
    assert caught.value.message == (
        "`memory` is 1G (4 GiB for 4 shards together), but this host has 3 GiB available (of 8 GiB)"
    )
    assert caught.value.hint == "ask for less with `--memory` or `--shards`, or free some"
    assert exit_code_of(caught.value) == 2


def test_more_processors_for_all_shards_than_the_host_has_is_refused_with_both_values() -> None:
    with pytest.raises(ConfigError) as caught:
        check_against_host(Config(shards=3, cpus=1, memory=Size.parse("512M")), HOST)
    assert caught.value.message == "`cpus` is 1, which makes 3 for 3 shards together, but this host has 2"
    assert caught.value.hint == "ask for fewer with `--cpus` or `--shards`"
    assert exit_code_of(caught.value) == 2


def test_more_memory_than_the_host_has_is_refused_with_both_values() -> None:
    host = replace(HOST, memory_available=1_500_000_000)
    with pytest.raises(ConfigError) as caught:
        check_against_host(Config(memory=Size.parse("6G")), host)
    assert caught.value.message == "`memory` is 6G, but this host has 1.4 GiB available (of 8 GiB)"
    assert caught.value.hint == "ask for less with `--memory`, or free some"
    assert exit_code_of(caught.value) == 2

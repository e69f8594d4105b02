"""QEMU's argument list: one golden list for the whole, and what each feature adds to it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from sample_plans import sample_plan

from vmrunner.config.units import Size
from vmrunner.machine import arguments
from vmrunner.machine.plan import KernelBoot, LongLived, MemoryFile, RootDisk, Share

LONG_LIVED = LongLived(Path("/vm,1/monitor"), Path("/vm,1/console"))


def value_after(option: str, words: list[str]) -> str:
    """The value of the only `option` in `words`."""
    assert words.count(option) == 1
    return words[words.index(option) + 1]


def test_the_whole_list() -> None:
    key = base64.b64encode(b"ssh-ed25519 AAAA vmrunner\n").decode()
    assert arguments.qemu_arguments(sample_plan(), monitor_fd=7) == [
        "/usr/bin/qemu-system-x86_64",
        "-name", "guest=vmrunner-1",
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-machine", "pc-q35-7.2,vmport=off,memory-backend=ram",
        "-accel", "kvm",
        "-cpu", "host",
        "-smp", "2",
        "-m", "size=1G",
        "-object", "memory-backend-ram,id=ram,size=1G",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-action", "reboot=shutdown,shutdown=poweroff,panic=pause",
        "-chardev", "socket,id=monitor,fd=7",
        "-mon", "chardev=monitor,mode=control",
        "-kernel", "/img/vmlinuz",
        "-initrd", "/img/initrd",
        "-append", "console=ttyS0 root=/dev/vda",
        "-chardev", "file,id=serial,path=/run/serial.log",
        "-serial", "chardev:serial",
        "-object", "throttle-group,id=root-limits",
        "-blockdev", "file,node-name=root-file,filename=/run/overlay.qcow2,discard=unmap,cache.no-flush=on",
        "-blockdev", "qcow2,node-name=root,file=root-file,discard=unmap,cache.no-flush=on",
        "-blockdev", "throttle,node-name=root-throttle,throttle-group=root-limits,file=root,discard=unmap,cache.no-flush=on",
        "-device", "virtio-blk-pci,id=disk0,drive=root-throttle,serial=root",
        "-netdev", "user,id=net0,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", "virtio-net-pci,id=nic0,netdev=net0,romfile=",
        "-device", "virtio-rng-pci,id=rng0",
        "-device", "vmgenid,id=vmgenid0,guid=auto",
        "-device", "pvpanic-pci,id=pvpanic0",
        "-fsdev", "local,id=fs-in,path=/run/in,security_model=none,multidevs=remap,readonly=on",
        "-device", "virtio-9p-pci,id=share-in,fsdev=fs-in,mount_tag=in",
        "-fsdev", "local,id=fs-out,path=/run/out,security_model=none,multidevs=remap,readonly=off",
        "-device", "virtio-9p-pci,id=share-out,fsdev=fs-out,mount_tag=out",
        "-smbios", f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={key}",
        "-smbios", "type=11,path=/run/host-key",
    ]  # fmt: skip


def test_the_list_is_a_function_of_the_plan_alone() -> None:
    assert arguments.qemu_arguments(sample_plan(), monitor_fd=3) == arguments.qemu_arguments(
        sample_plan(), monitor_fd=3
    )


@pytest.mark.parametrize(
    ("size", "written"),
    [
        ("2G", "size=2G"),
        ("1536M", "size=1536M"),
        ("1.3G", "size=1395864371B"),
        ("500000000", "size=500000000B"),
    ],
)
def test_memory_always_has_a_unit_because_qemu_takes_a_bare_number_for_mebibytes(
    size: str, written: str
) -> None:
    words = arguments.memory_arguments(sample_plan(memory=Size.parse(size)))
    assert value_after("-m", words) == written
    assert value_after("-object", words) == f"memory-backend-ram,id=ram,{written}"


def test_cpus_and_model() -> None:
    words = arguments.machine_arguments(sample_plan(cpus=7, cpu_model="host,-arch-capabilities"))
    assert value_after("-smp", words) == "7"
    assert value_after("-cpu", words) == "host,-arch-capabilities"


@pytest.mark.parametrize(
    ("accelerator", "written"), [("kvm", "kvm"), ("tcg", "tcg,thread=multi,tb-size=256")]
)
def test_accelerator(accelerator: str, written: str) -> None:
    assert value_after("-accel", arguments.machine_arguments(sample_plan(accelerator=accelerator))) == written


@pytest.mark.parametrize(("network", "written"), [("restricted", "restrict=on"), ("user", "restrict=off")])
def test_network_modes_differ_in_one_word(network: str, written: str) -> None:
    netdev = value_after("-netdev", arguments.network_arguments(sample_plan(network=network)))
    assert netdev == f"user,id=net0,ipv6=off,{written},hostfwd=tcp:127.0.0.1:0-:22"


def test_the_forward_listens_on_loopback_only_and_leaves_the_port_to_qemu() -> None:
    for network in ("restricted", "user"):
        netdev = value_after("-netdev", arguments.network_arguments(sample_plan(network=network)))
        assert netdev.split("hostfwd=")[1] == "tcp:127.0.0.1:0-:22"


def test_no_shares_and_no_credentials_add_nothing() -> None:
    assert arguments.share_arguments(()) == []
    assert arguments.credential_arguments(()) == []


def test_a_share_is_readonly_only_where_it_says_so() -> None:
    fsdev = value_after("-fsdev", arguments.share_arguments((Share("in", Path("/a"), readonly=True),)))
    assert fsdev.endswith(",readonly=on")
    fsdev = value_after("-fsdev", arguments.share_arguments((Share("out", Path("/a"), readonly=False),)))
    assert fsdev.endswith(",readonly=off")


def test_the_host_key_is_no_secret_that_arguments_show() -> None:
    words = arguments.qemu_arguments(sample_plan(), monitor_fd=7)
    assert not [word for word in words if "ssh_host_key" in word]


def test_a_credential_may_hold_anything() -> None:
    secret = "a,b=c\n\x00 ü"
    text = value_after("-smbios", arguments.credential_arguments((("name", secret),)))
    prefix, _, encoded = text.partition("=io.systemd.credential.binary:name=")
    assert prefix == "type=11,value"
    assert base64.b64decode(encoded).decode() == secret
    assert "," not in encoded


def test_commas_are_doubled_wherever_qemu_reads_an_option_list() -> None:
    plan = sample_plan(
        name="a,b",
        serial_log=Path("/x,y/serial"),
        disk=RootDisk(Path("/x,y/disk"), Path("/img"), "raw", Size(1)),
        shares=(Share("in", Path("/x,y/in"), readonly=True),),
    )
    words = arguments.qemu_arguments(plan, monitor_fd=3)
    assert value_after("-name", words) == "guest=a,,b"
    assert "file,id=serial,path=/x,,y/serial" in words
    assert any(",filename=/x,,y/disk," in word for word in words)
    assert any(",path=/x,,y/in," in word for word in words)


def test_commas_are_left_alone_where_qemu_takes_the_whole_word() -> None:
    boot = KernelBoot(Path("/x,y/vmlinuz"), Path("/x,y/initrd"), ("console=ttyS0,115200",))
    words = arguments.boot_arguments(sample_plan(boot=boot))
    assert words == [
        "-kernel", "/x,y/vmlinuz", "-initrd", "/x,y/initrd", "-append", "console=ttyS0,115200",
    ]  # fmt: skip


def test_without_an_initrd_none_is_named() -> None:
    words = arguments.boot_arguments(sample_plan(boot=KernelBoot(Path("/k"), None, ("a", "b"))))
    assert words == ["-kernel", "/k", "-append", "a b"]


def test_extra_arguments_come_last_as_they_are() -> None:
    extra = ("-device", "i6300esb", "-append", "x,y")
    words = arguments.qemu_arguments(sample_plan(extra_arguments=extra), monitor_fd=3)
    assert words[-4:] == list(extra)
    assert words[:-4] == arguments.qemu_arguments(sample_plan(), monitor_fd=3)


def test_a_preview_has_a_stand_in_for_the_monitor() -> None:
    assert arguments.monitor_arguments(sample_plan(), "<monitor>")[1] == "socket,id=monitor,fd=<monitor>"


def test_the_sandbox_is_always_on_and_a_reboot_ends_the_machine() -> None:
    words = arguments.lifecycle_arguments(sample_plan())
    assert value_after("-sandbox", words).startswith("on,")
    assert "spawn=deny" in value_after("-sandbox", words)
    assert "reboot=shutdown" in value_after("-action", words)
    assert "-incoming" not in words


def test_a_long_lived_machine_is_sandboxed_too_and_reboots() -> None:
    words = arguments.lifecycle_arguments(sample_plan(long_lived=LONG_LIVED))
    assert value_after("-sandbox", words) == value_after(
        "-sandbox", arguments.lifecycle_arguments(sample_plan())
    )
    assert value_after("-action", words) == "reboot=reset,shutdown=poweroff,panic=pause"


@pytest.mark.parametrize(("shared", "written"), [(True, "share=on"), (False, "share=off")])
def test_a_memory_file_is_shared_by_who_saves_it_and_private_to_who_restores(
    shared: bool, written: str
) -> None:
    plan = sample_plan(memory_file=MemoryFile(Path("/x,y/ram"), shared=shared))
    words = arguments.memory_arguments(plan)
    assert value_after("-object", words) == f"memory-backend-file,id=ram,size=1G,{written},mem-path=/x,,y/ram"


def test_the_machine_uses_the_memory_of_the_same_name_wherever_it_is() -> None:
    for memory_file in (None, MemoryFile(Path("/ram"), shared=True)):
        words = arguments.qemu_arguments(sample_plan(memory_file=memory_file), monitor_fd=3)
        assert value_after("-machine", words).endswith(",memory-backend=ram")
        assert ",id=ram," in next(word for word in words if word.startswith("memory-backend-"))


def test_an_incoming_machine_waits_stopped_and_has_no_use_for_a_kernel() -> None:
    booted = arguments.qemu_arguments(sample_plan(), monitor_fd=3)
    words = arguments.qemu_arguments(sample_plan(incoming=True), monitor_fd=3)
    assert value_after("-incoming", words) == "defer"
    assert [word for word in booted if word not in words] == [
        "-kernel", "/img/vmlinuz", "-initrd", "/img/initrd", "-append", "console=ttyS0 root=/dev/vda",
    ]  # fmt: skip
    assert [word for word in words if word not in booted] == ["-incoming", "defer", "-S"]


def test_a_long_lived_machine_that_comes_in_has_its_kernel_for_when_it_reboots() -> None:
    words = arguments.boot_arguments(sample_plan(incoming=True, long_lived=LONG_LIVED))
    assert words == arguments.boot_arguments(sample_plan())


def test_a_long_lived_machine_listens_for_who_comes_later() -> None:
    words = arguments.qemu_arguments(sample_plan(long_lived=LONG_LIVED))
    assert "socket,id=monitor,path=/vm,,1/monitor,server=on,wait=off" in words
    assert (
        "socket,id=serial,path=/vm,,1/console,server=on,wait=off,logfile=/run/serial.log,logappend=on"
        in words
    )
    assert not any("fd=" in word for word in words)


def test_a_long_lived_machines_disk_outlives_a_crash_of_the_host() -> None:
    words = arguments.disk_arguments(sample_plan(long_lived=LONG_LIVED))
    flushes = [word.rpartition(",")[2] for word in words if "no-flush" in word]
    assert flushes == ["cache.no-flush=off"] * 3

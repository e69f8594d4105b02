"""Devices besides disk and network card, and the shares."""

from __future__ import annotations

from vmrunner.machine.hardware.words import option
from vmrunner.machine.plan import MachinePlan, Share

BALLOON_ID = "balloon0"

_RNG_SOURCE = "rng-source"


def device_arguments(plan: MachinePlan) -> list[str]:
    """Entropy, a generation id that tells a restored guest it is a new machine, and a panic that is heard."""
    return [
        *_rng_arguments(plan),
        "-device", "vmgenid,id=vmgenid0,guid=auto",
        "-device", "pvpanic-pci,id=pvpanic0",
    ]  # fmt: skip


def late_device_arguments(plan: MachinePlan) -> list[str]:
    """Devices behind all others, so that those keep their places on the bus whether these are there or not.

    A machine can have a balloon, and all that follows it, though its template had none (the guest finds them when it looks
    again); so those are the last.
    """
    return [
        *(("-device", "i6300esb,id=watchdog0") if plan.watchdog else ()),
        *(("-device", f"virtio-balloon-pci,id={BALLOON_ID}") if plan.balloon else ()),
    ]


def clock_arguments(plan: MachinePlan) -> list[str]:
    """The real-time clock, where it is not QEMU's default."""
    words = [f"base={plan.rtc}"] if plan.rtc != "utc" else []
    if plan.rtc_drift != "none":
        words.append(f"driftfix={plan.rtc_drift}")
    return ["-rtc", ",".join(words)] if words else []


def share_arguments(shares: tuple[Share, ...]) -> list[str]:
    """The 9p exports. `security_model=none`: files belong to QEMU's user, whatever the guest's root says."""
    arguments: list[str] = []
    for share in shares:
        arguments += [
            "-fsdev", option(
                "local", id=f"fs-{share.tag}", path=share.path, security_model="none", multidevs="remap",
                readonly="on" if share.readonly else "off",
            ),
            "-device", option("virtio-9p-pci", id=f"share-{share.tag}", fsdev=f"fs-{share.tag}", mount_tag=share.tag),
        ]  # fmt: skip
    return arguments


def _rng_arguments(plan: MachinePlan) -> list[str]:
    match plan.rng:
        case "off":
            return []
        case "urandom":
            return [
                "-object", option("rng-random", id=_RNG_SOURCE, filename="/dev/urandom"),
                "-device", f"virtio-rng-pci,id=rng0,rng={_RNG_SOURCE}",
            ]  # fmt: skip
        case "builtin":
            return ["-device", "virtio-rng-pci,id=rng0"]

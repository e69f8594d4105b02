"""What a disk image's format is, and what limits of a disk are written as: bytes and requests per second, with bursts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vmrunner.config.units import Size

_KINDS = tuple(f"{unit}{way}" for unit in ("bps", "iops") for way in ("", "-read", "-write"))
LIMIT_NAMES = (*_KINDS, *(f"{kind}-burst" for kind in _KINDS), "burst-seconds")
"""All keys of `disk-limits`. A burst is what may be used for `burst-seconds` after a rest, instead of its limit."""

_LONGEST_BURST = 3600
_MOST = 10**15


def image_format(path: Path) -> Literal["raw", "qcow2"]:
    """What a disk image is taken for, by its name alone.

    Not by what is in it: a guest that can write to a raw image could make it look like a qcow2 file, and that names
    other files which QEMU then opens.
    """
    return "qcow2" if path.suffix == ".qcow2" else "raw"


def check_limits(limits: Mapping[str, str]) -> dict[str, str]:
    """The limits in their shortest spelling. Raises ValueError where one is unknown, or two do not go together."""
    checked = {name: _checked(name, str(value)) for name, value in limits.items()}
    checked = {name: value for name, value in checked.items() if value != "0"}
    for unit in ("bps", "iops"):
        apart = [name for name in (f"{unit}-read", f"{unit}-write") if name in checked]
        if unit in checked and apart:
            raise ValueError(
                f"{unit} and {apart[0]} (QEMU takes a limit on both ways together, or one on each)"
            )
    for name, value in checked.items():
        base = name.removesuffix("-burst")
        if base == name:
            continue
        if base not in checked:
            raise ValueError(f"{name} without {base} (a burst is over a limit)")
        if number_of(value) < number_of(checked[base]):
            raise ValueError(f"{name} {value} is less than {base} {checked[base]} (a burst is more)")
    return checked


def number_of(text: str) -> int:
    """The number that a checked limit stands for: bytes, requests or seconds."""
    return int(Size.parse(text))


def throttle_limits(limits: Mapping[str, str]) -> dict[str, int]:
    """The same as properties of QEMU's throttle group (qapi, ThrottleLimits); what is not limited is 0 there."""
    found = {}
    for name, value in limits.items():
        if name == "burst-seconds":
            continue
        kind, burst = name.removesuffix("-burst"), name.endswith("-burst")
        key = (kind if "-" in kind else f"{kind}-total") + ("-max" if burst else "")
        found[key] = number_of(value)
        if burst and "burst-seconds" in limits:
            found[f"{key}-length"] = number_of(limits["burst-seconds"])
    return found


def limits_of_throttle(values: Mapping[str, object]) -> dict[str, str]:
    """The limits that QEMU says are in force, as they are written in settings."""
    found: dict[str, str] = {}
    for kind in _KINDS:
        key = kind if "-" in kind else f"{kind}-total"
        for name, property_name in ((kind, key), (f"{kind}-burst", f"{key}-max")):
            number = int(str(values.get(property_name, 0)))
            if number:
                found[name] = str(Size(number)) if kind.startswith("bps") else str(number)
        length = int(str(values.get(f"{key}-max-length", 1)))
        if f"{kind}-burst" in found and length > 1:
            found["burst-seconds"] = str(length)
    return found


def _checked(name: str, value: str) -> str:
    if name not in LIMIT_NAMES:
        raise ValueError(f"not a disk limit: {name!r} (want {', '.join(LIMIT_NAMES)})")
    if name.startswith("bps"):
        size = Size.parse(value)
        least, shown, number = 512, str(size), int(size)
    else:
        if not value.isdecimal():
            raise ValueError(f"not a whole number: {name}={value!r}")
        least, shown, number = 1, str(int(value)), int(value)
    most = _LONGEST_BURST if name == "burst-seconds" else _MOST
    if number and not least <= number <= most:
        raise ValueError(f"impossible limit: {name}={value} (want {least} to {most})")
    return shown

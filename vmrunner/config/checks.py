"""Checks of single values: each returns its value or raises ValueError with one sentence naming it."""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from vmrunner.config.units import Duration, Size

_Value = TypeVar("_Value")

IMAGE_NAMES = ("auto", "debian", "nixos")

# Debian Policy 5.6.1: lower case letters, digits, plus, minus, dot; two characters at least.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# RFC 1123 labels, and the underscore that container and service names carry in practice.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
# What Nix people write that would depend on the computer, or needs flakes.
_MUTABLE_NIXPKGS = re.compile(r"<.*>|(?:channel|flake|github|gitlab|git|nixpkgs|npins):.*")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
# As Nix writes SHA-256: with base64, or as `nix-prefetch-url` prints it.
SRI_HASH = re.compile(r"sha256-[A-Za-z0-9+/]{43}=")
NIX_BASE32_HASH = re.compile(r"(?:sha256:)?([0-9a-df-np-sv-z]{52})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_*:-]+)+")
_MACHINE_TYPE = re.compile(r"auto|q35|pc|pc-(?:q35|i440fx)-\d{1,2}\.\d{1,2}(?:\.\d{1,2})?")
_NO_PC = ("microvm", "isapc", "none", "x")
_CPU_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,+=-]*")
_HOST_NAME_LENGTH = 253
_HOSTS_FORMS = "in vmrunner.yaml write 10.0.2.2: [db.test], in a flag db.test=10.0.2.2"
# Closer than this to one of IMAGE_NAMES, a word is a slip rather than a directory.
_SLIP_RATIO = 0.75


def between(least: str, most: str) -> Callable[[Size], Size]:
    """A check that a size lies in `least`..`most`, both included."""

    def check(value: Size) -> Size:
        if not Size.parse(least) <= value <= Size.parse(most):
            raise ValueError(f"impossible size: {str(value)!r} (want {least} to {most})")
        return value

    return check


def lasting_at_most(most: str) -> Callable[[Duration], Duration]:
    """A check that a duration is longer than nothing and no longer than `most`."""

    def check(value: Duration) -> Duration:
        if not 0 < value <= Duration.parse(most):
            raise ValueError(f"impossible duration: {str(value)!r} (want more than 0s, {most} at most)")
        return value

    return check


def at_most(most: str) -> Callable[[Duration], Duration]:
    """A check that a duration is no longer than `most`."""

    def check(value: Duration) -> Duration:
        if value > Duration.parse(most):
            raise ValueError(f"impossible duration: {str(value)!r} (want {most} at most)")
        return value

    return check


def switch(value: object) -> object:
    """`on` or `off`; what else YAML has for that is taken too."""
    text = str(value).lower()
    return {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text, text)


def machine_type(value: str) -> str:
    """`auto`, or one of QEMU's PCs: other machines lack what a guest of ours needs."""
    if value.partition("-")[0] in _NO_PC:
        raise ValueError(
            f"a machine type without a PCI bus that devices can be plugged into: {value!r} (want auto, q35, pc, or one of "
            "these with its version)"
        )
    if not _MACHINE_TYPE.fullmatch(value):
        raise ValueError(f"not a machine type: {value!r} (want auto, q35, pc, or for example pc-q35-7.1)")
    return value


def rtc(value: str) -> str:
    """What QEMU's `-rtc base=` takes: `utc`, `localtime`, or a time without a zone."""
    if value in {"utc", "localtime"}:
        return value
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or found.tzinfo or found.microsecond:
        raise ValueError(f"not a time: {value!r} (want utc, localtime or for example 2030-01-01T00:00:00)")
    return found.isoformat()


def module_name(value: str) -> str:
    """The name of a kernel module."""
    if not _MODULE.fullmatch(value):
        raise ValueError(f"not a kernel module: {value!r} (want for example dummy)")
    return value


def sysctl_name(value: str) -> str:
    """The name of a kernel parameter, such as `net.ipv4.ip_forward`."""
    if not _SYSCTL.fullmatch(value):
        raise ValueError(f"not a kernel parameter: {value!r} (want for example vm.swappiness)")
    return value


def package_name(value: str) -> str:
    """A Debian package's name."""
    if not _PACKAGE.fullmatch(value):
        raise ValueError(f"not a Debian package name: {value!r} (want for example iproute2)")
    return value


def cpu_model(value: str) -> str:
    """What QEMU's `-cpu` may take: a model and its properties, such as `host,pmu=off`."""
    if not _CPU_MODEL.fullmatch(value):
        raise ValueError(f"not a CPU model: {value!r} (want for example host, max or Haswell-v4)")
    return value


def argument(value: str) -> str:
    """A command-line argument; the kernel ends one at its first NUL."""
    if "\0" in value:
        raise ValueError(f"holds a NUL character: {value!r}")
    return value


def kernel_argument(value: str) -> str:
    """A word of the kernel command line, which is one line of text."""
    if not value or not value.isprintable():
        raise ValueError(f"not a kernel argument: {value!r} (want for example quiet or mitigations=off)")
    return value


def address(value: str) -> str:
    """An IPv4 or IPv6 address without a zone (`%eth0` names an interface of one machine only)."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"not an IP address: {value!r} ({_HOSTS_FORMS})") from None
    if "%" in value:
        raise ValueError(f"an IP address with a zone: {value!r} (leave out the part from %)")
    return value


def host_name(value: str) -> str:
    """A host name as /etc/hosts takes it."""
    labels = value.split(".")
    if len(value) > _HOST_NAME_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"not a host name: {value!r} (want for example db.test)")
    if labels[-1].isdigit():
        raise ValueError(f"not a host name: {value!r} (it reads as an address)")
    return value


def machine_id(value: str) -> str:
    """`shared`, `random`, or an id as machine-id(5) has it."""
    if value not in {"shared", "random"} and not _MACHINE_ID.fullmatch(value):
        raise ValueError(
            f"not a machine id: {value!r} (want shared, random or 32 lower-case hexadecimal digits)"
        )
    return value


def variable_name(value: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"not a variable name: {value!r} (want for example RUST_LOG)")
    return value


def image_name(value: object) -> object:
    """Refuse a word that is nearly one of IMAGE_NAMES: it would be looked for as a directory."""
    if isinstance(value, str) and "/" not in value and value not in IMAGE_NAMES:
        slip = difflib.get_close_matches(value, IMAGE_NAMES, n=1, cutoff=_SLIP_RATIO)
        if slip:
            raise ValueError(f"not an image: {value!r} (did you mean {slip[0]}, or the directory ./{value}?)")
    return value


def path(value: object) -> object:
    """A path that is not empty, with a leading `~` replaced by the home directory."""
    if value == "":
        raise ValueError("an empty path")
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 -- Path.expanduser raises where there is no home


def path_or_hashed_url(value: object) -> object:
    """A path, or a URL whose fragment is the hash of what it must give, as Nix writes it."""
    if isinstance(value, str) and _MUTABLE_NIXPKGS.fullmatch(value):
        raise ValueError(
            f"not always the same nixpkgs: {value!r} (channels, NIX_PATH and flakes are not used; want a directory, that of"
            " npins, or URL#HASH)"
        )
    if not isinstance(value, str) or "://" not in value:
        found = path(value)
        return Path(found) if isinstance(found, str) else found
    url, _, digest = value.partition("#")
    if not _URL.fullmatch(url):
        raise ValueError(f"not a URL: {value!r}")
    if not (SRI_HASH.fullmatch(digest) or NIX_BASE32_HASH.fullmatch(digest)):
        raise ValueError(
            f"a URL without the hash of what it gives: {value!r} (want URL#HASH; `nix-prefetch-url --unpack URL` prints it)"
        )
    return value


def one_or_many(value: object) -> object:
    """A single text stands for a list of one."""
    return (value,) if isinstance(value, str) else value


def read_only(value: Mapping[str, _Value]) -> Mapping[str, _Value]:
    """A view of `value` that nobody can write to: a frozen Config is frozen all through."""
    return MappingProxyType(dict(value))

"""Which nixpkgs: from what a user wrote to a directory, its version and revision; and whether this Nix is new enough.

There are four sources, and none of them is a channel or NIX_PATH: what an image is made of does not depend on what the
computer that makes it has lying about.
"""

from __future__ import annotations

import binascii
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vmrunner.config.checks import NIX_BASE32_HASH, SRI_HASH
from vmrunner.errors import ConfigError, ImageBuildFailed
from vmrunner.events import Phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import write_atomically
from vmrunner.host.paths import data_dir
from vmrunner.image.nixos.failure import NEWER_NIX_HINT
from vmrunner.image.nixos.nix_build import NixVersion, evaluate

_EXPRESSION: Final = "nixpkgs.nix"
_PIN: Final = "nixpkgs.json"
_SPELLINGS: Final = (
    "`nixpkgs:` takes a directory with nixpkgs in it, that of npins, or https://...#sha256-...; without it the pin of "
    "vmrunner is used"
)
_URL: Final = re.compile(r"(?:https?|file)://.*")
_BASE32_DIGITS: Final = "0123456789abcdfghijklmnpqrsvwxyz"
_SHA256_BYTES: Final = 32
# lib/minver.nix is `"2.18"`; lib/minfeatures.nix, its successor, has `compareVersions "2.18" builtins.nixVersion`.
_MINIMUM: Final = {
    "lib/minver.nix": re.compile(r'^\s*"(\d[\d.]*)"\s*$', re.MULTILINE),
    "lib/minfeatures.nix": re.compile(r'compareVersions\s+"(\d[\d.]*)"\s+builtins\.nixVersion'),
}


@dataclass(frozen=True)
class PathSource:
    """A directory that is a nixpkgs: a clone, or a path of the Nix store."""

    path: Path


@dataclass(frozen=True)
class UrlSource:
    """A tarball; `hash` is that of its unpacked content, in SRI form (`sha256-...`)."""

    url: str
    hash: str


@dataclass(frozen=True)
class NpinsSource:
    """The pin named nixpkgs in a directory that npins made."""

    directory: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """What decides what the pin is."""
        return (self.directory / "default.nix", self.directory / "sources.json")


@dataclass(frozen=True)
class PinSource:
    """The nixpkgs that vmrunner names itself, in nix/nixpkgs.json."""


Source = PathSource | UrlSource | NpinsSource | PinSource


class Nixpkgs(BaseModel, frozen=True, extra="ignore"):
    """A nixpkgs that is on this computer. `revision` is a git commit, where it is known."""

    path: Path
    version: str
    revision: str | None = None


class _Pin(BaseModel, frozen=True, extra="ignore", populate_by_name=True):
    revision: str
    minimumNix: str  # noqa: N815  # the name in the file


def parse_source(text: str | None, *, directory: Path) -> Source:
    """The source that a user means by `text`; relative paths start at `directory`. None is vmrunner's pin.

    Raises ConfigError for what is none.
    """
    if text is None:
        return PinSource()
    if _URL.fullmatch(text):
        return _url_source(text)
    path = _absolute(text, directory)
    if not path.is_dir():
        raise ConfigError(f"`nixpkgs` is {text!r}, but there is no directory {path}", hint=_SPELLINGS)
    pins = NpinsSource(path)
    if all(file.is_file() for file in pins.files):
        return pins
    if not (path / "lib/.version").is_file():
        raise ConfigError(
            f"`nixpkgs` is {text!r}, but {path} is no nixpkgs: it has no file lib/.version", hint=_SPELLINGS
        )
    return PathSource(path)


def resolve(source: Source, *, nix: NixVersion, scratch: Path, current: Phase, deadline: Deadline) -> Nixpkgs:
    """The nixpkgs that a source is, fetched where need be. `scratch` is a file that is written for Nix and removed.

    Raises ImageBuildFailed where it cannot be fetched, or needs a newer Nix than `nix`: as soon as that is known, and
    before anything of it is evaluated.
    """
    if isinstance(source, PinSource):
        check_pin(nix)
    elif isinstance(source, PathSource):
        check_nix(source.path, nix)
    expression = data_dir("nix") / _EXPRESSION
    current.progress(0, None, text="looking for nixpkgs")
    arguments = {}
    if (asked := _as_json(source)) is not None:
        write_atomically(scratch, json.dumps(asked))
        arguments = {"source": str(scratch)}
    try:
        found = evaluate(expression, arguments=arguments, current=current, deadline=deadline)
    finally:
        scratch.unlink(missing_ok=True)
    try:
        nixpkgs = Nixpkgs.model_validate(found)
    except ValidationError as error:
        raise ImageBuildFailed(f"{expression} does not say where nixpkgs is", details=str(found)) from error
    check_nix(nixpkgs.path, nix)
    return nixpkgs


def check_pin(nix: NixVersion) -> None:
    """Raise ImageBuildFailed where vmrunner's own pin needs a newer Nix."""
    pin = _pin()
    _require(pin.minimumNix, nix, f"nixpkgs {pin.revision[:12]}, which vmrunner pins,")


def check_nix(nixpkgs: Path, nix: NixVersion) -> None:
    """Raise ImageBuildFailed where a nixpkgs says that it needs a newer Nix; one that says nothing is believed to work."""
    for name, pattern in _MINIMUM.items():
        if match := pattern.search(_text(nixpkgs / name)):
            version = _text(nixpkgs / "lib/.version").strip()
            _require(match[1], nix, f"nixpkgs {version}".rstrip())


def _require(minimum: str, nix: NixVersion, whose: str) -> None:
    if nix.numbers < tuple(int(number) for number in minimum.split(".") if number):
        raise ImageBuildFailed(
            f"{whose} needs Nix {minimum} or newer, but {nix.program} is {nix.text}", hint=NEWER_NIX_HINT
        )


def _url_source(text: str) -> UrlSource:
    url, _, digest = text.partition("#")
    if base32 := NIX_BASE32_HASH.fullmatch(digest):
        digest = _sri(base32[1])
    if not SRI_HASH.fullmatch(digest):
        raise ConfigError(
            f"`nixpkgs` is {text!r}, which does not end with the hash of what is there",
            hint="write URL#sha256-...; `nix-prefetch-url --unpack URL` prints the hash (URL#0abc... is taken too)",
        )
    return UrlSource(url, digest)


def _sri(base32: str) -> str:
    """Nix's base 32 has the last bits first: src/libutil/hash.cc."""
    number = 0
    for digit in base32:
        number = number << 5 | _BASE32_DIGITS.index(digit)
    try:
        content = number.to_bytes(_SHA256_BYTES, "little")
    except OverflowError as error:
        raise ConfigError(f"`nixpkgs` ends with {base32!r}, which is no SHA-256", hint=_SPELLINGS) from error
    return "sha256-" + binascii.b2a_base64(content, newline=False).decode()


def _as_json(source: Source) -> dict[str, str] | None:
    """What nix/nixpkgs.nix takes; None for its own pin."""
    match source:
        case PathSource(path):
            return {"path": str(path)}
        case UrlSource(url, digest):
            return {"url": url, "hash": digest}
        case NpinsSource(directory):
            return {"npins": str(directory)}
        case PinSource():
            return None


def _pin() -> _Pin:
    return _Pin.model_validate_json((data_dir("nix") / _PIN).read_bytes())


def _absolute(text: str, directory: Path) -> Path:
    # Resolved, so that a link that is changed to another nixpkgs is another nixpkgs.
    return Path(os.path.realpath(directory / Path(text).expanduser()))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

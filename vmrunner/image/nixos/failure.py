"""What it means that Nix failed, as one sentence, a hint, and the lines to look at.

The messages decide, not the exit code: that is 100 (a builder failed), 101 (time-out) or 102 (hash mismatch) where Nix
builds by itself, but 1 where its daemon does, and 1 for a full disk and for everything else. Each text was seen from
Nix 2.8 and 2.26; "Cannot build ...\\nReason: ..." is what Nix since 2.30 says instead.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmrunner.errors import ImageBuildFailed
from vmrunner.image.nixos.build_log import BuildLog, short_name
from vmrunner.image.nixos.ended import MOST_LINES, Ended, Failure

NEWER_NIX_HINT: Final = "install a newer Nix, or set `nixpkgs:` to release 25.05 or older"

_LONGEST_MESSAGE: Final = 200

_FULL: Final = re.compile(
    r"No space left on device|Disk quota exceeded|lack of free disk space|database or disk is full"
)
_DERIVATION: Final = r"'(?P<drv>/[^\s'!^]+\.drv)"
_BUILDER_FAILED: Final = re.compile(
    rf"(?:builder for|build of|Cannot build) {_DERIVATION}[^\n]*?(?:\.\s+Reason: builder )?(?P<how>failed [^\n]*)"
)
_HASH: Final = re.compile(
    r"hash mismatch in (?P<what>.*?):\s+specified:\s+(?P<wanted>\S+)\s+got:\s+(?P<got>\S+)", re.DOTALL
)
_TIMED_OUT: Final = re.compile(rf"{_DERIVATION}.* timed out after (?P<time>\d+ seconds(?: of silence)?)")
_FEATURES: Final = re.compile(
    rf"a '(?P<system>[^']+)' with features {{(?P<wanted>[^}}]*)}} is required to build {_DERIVATION}', "
    r"but I am a '(?P<have_system>[^']+)' with features {(?P<have>[^}]*)}"
)
_NEW_FEATURES: Final = re.compile(
    rf"Cannot build {_DERIVATION}'\.\s+Reason: .*\s+Required system: '(?P<system>[^']+)' with features "
    r"{(?P<wanted>[^}]*)}\s+Current system: '(?P<have_system>[^']+)' with features {(?P<have>[^}]*)}"
)
_NETWORK: Final = re.compile(r"unable to download '(?P<url>[^']+)': (?P<why>[^\n;]*)")
# Of curl's reasons: its number for them, the same again in other words, and what encloses it all.
_NUMBER_AND_REST: Final = re.compile(r" \(\d+\).*| \('.*|\)+$")
# Of a derivation that was not begun because of another one.
_DEPENDENCIES: Final = re.compile(r"\d+ dependenc(?:y|ies) (?:of derivation .* )?failed")


@dataclass(frozen=True)
class _Saying:
    """A message of Nix that says all there is to say. `{names}` in `message` are groups of `pattern`."""

    pattern: str
    message: str
    hint: str

    def __call__(self, failure: Failure) -> ImageBuildFailed | None:
        """The error, where one of the messages has the pattern."""
        match = re.search(self.pattern, failure.text)
        if match is None:
            return None
        return failure.explained(
            self.message.format(**match.groupdict()), hint=self.hint, lines=failure.first_with_positions
        )


_INTERRUPTED: Final = _Saying(
    "interrupted by the user",
    "Nix was interrupted",
    "run the command again; what is built already is not built again",
)
_DAEMON: Final = _Saying(
    r"cannot connect to (?:socket|daemon) at '(?P<socket>[^']+)': (?P<why>[^\n]*)",
    "the Nix daemon cannot be reached at {socket}: {why}",
    "`sudo systemctl start nix-daemon` starts it; your user must be in `allowed-users` of nix.conf",
)
_BUILD_USERS: Final = _Saying(
    r"the (?:build users )?group '(?P<group>[^']+)' (?:specified in 'build-users-group' )?(?P<state>has no members|does not exist)",
    "Nix cannot build: the group {group} of its build users {state}",
    "let the installer of Nix make them or, as root and without a daemon, set `build-users-group =` (empty) in nix.conf",
)
_TOO_OLD: Final = _Saying(
    r"This version of Nixpkgs requires Nix\s*>=?\s*(?P<version>\d+(?:\.\d+)*)",
    "this nixpkgs needs Nix {version} or newer",
    NEWER_NIX_HINT,
)
_SEARCH_PATH: Final = _Saying(
    r"file '(?P<name>[^']+)' was not found in the Nix search path",
    "an expression asks for <{name}>, but neither NIX_PATH nor channels are used",
    "a module gets nixpkgs as its argument `pkgs`; `nixpkgs:` chooses which one",
)
_FORBIDDEN: Final = _Saying(
    r"'(?P<path>/[^']+)'[^\n]*: (?P<why>Permission denied|Operation not permitted|Read-only file system)",
    "Nix cannot use {path}: {why}",
    "without root Nix needs its daemon (`sudo systemctl start nix-daemon`) or a store of your own; modules must be readable",
)


def nix_failure(ended: Ended, log: BuildLog) -> ImageBuildFailed:
    """The error for a Nix program that failed."""
    failure = Failure(ended, log)
    for explain in _EXPLANATIONS:
        if error := explain(failure):
            return error
    return _evaluation(failure)


def _killed(failure: Failure) -> ImageBuildFailed | None:
    ended = failure.ended
    if ended.code >= 0:
        return None
    known = -ended.code in set(signal.Signals)
    name = signal.Signals(-ended.code).name if known else f"signal {-ended.code}"
    hint = "the kernel kills it when memory runs out; an evaluation takes one to two gigabytes"
    return failure.explained(
        f"{ended.name} was killed by {name}", hint=hint if name == "SIGKILL" else "run the command again"
    )


def _disk_full(failure: Failure) -> ImageBuildFailed | None:
    lines = [line for line in failure.builder_lines if _FULL.search(line)]
    if not _FULL.search(failure.text) and not (lines and _BUILDER_FAILED.search(failure.text)):
        return None
    return failure.explained(
        "the disk filled up while the NixOS image was built",
        hint="`nix-collect-garbage` makes room in the Nix store, `vmrunner image prune` in vmrunner's",
        lines=[*lines[-MOST_LINES:], *failure.text.splitlines()],
    )


def _hash_mismatch(failure: Failure) -> ImageBuildFailed | None:
    match = _HASH.search(failure.text)
    if match is None:
        return None
    what = (
        match["what"]
        .removeprefix("fixed-output derivation ")
        .removeprefix("file downloaded from ")
        .strip("'")
    )
    name = short_name(what) if what.endswith(".drv") else what
    return failure.explained(
        f"the hash of {name} is not the one that was given",
        hint="if what was downloaded is what you want, write the hash that was got where the other one stands",
        lines=[f"wanted: {match['wanted']}", f"got:    {match['got']}"],
    )


def _timed_out(failure: Failure) -> ImageBuildFailed | None:
    match = _TIMED_OUT.search(failure.text)
    if match is None:
        return None
    return failure.explained(
        f"Nix gave up building {short_name(match['drv'])} after {match['time']}",
        hint="`timeout` or `max-silent-time` of nix.conf sets that time",
        lines=[*failure.log.log_of(match["drv"]), *failure.last_lines],
    )


def _missing_feature(failure: Failure) -> ImageBuildFailed | None:
    match = _FEATURES.search(failure.text) or _NEW_FEATURES.search(failure.text)
    if match is None:
        return None
    name = short_name(match["drv"])
    if match["system"] != match["have_system"]:
        return failure.explained(
            f"{name} must be built on {match['system']}, and this computer builds for {match['have_system']}",
            hint="the image is x86_64-linux: a computer of that kind, or a remote builder of Nix, can build it",
        )
    have = set(match["have"].replace(",", " ").split())
    missing = [feature for feature in match["wanted"].replace(",", " ").split() if feature not in have]
    return failure.explained(
        f"building {name} needs the system feature {', '.join(missing)}, which this Nix does not have",
        hint="vmrunner's own image needs none, so one of your `modules:` asks for it; where this computer can give it, "
        "add it to `system-features` in nix.conf",
    )


def _network(failure: Failure) -> ImageBuildFailed | None:
    match = _NETWORK.search(failure.text)
    if match is None and _BUILDER_FAILED.search(failure.text):
        lines = reversed(failure.builder_lines)
        match = next((found for line in lines if (found := _NETWORK.search(line))), None)
    if match is None:
        return None
    return failure.explained(
        f"{match['url']} cannot be downloaded: {_decapitalised(_NUMBER_AND_REST.sub('', match['why']))}",
        hint="check the address, the network, and that https_proxy is set where there is a proxy",
    )


def _builder_failed(failure: Failure) -> ImageBuildFailed | None:
    texts = [error.text for error in failure.log.errors if not _DEPENDENCIES.search(error.text)]
    match = next((found for text in texts if (found := _BUILDER_FAILED.search(text))), None)
    if match is None:
        return None
    return failure.explained(
        f"building {short_name(match['drv'])} {match['how'].rstrip(' .;')}",
        hint=f"`nix-store --read-log {match['drv']}` shows the whole log",
        lines=failure.log.log_of(match["drv"]) or failure.last_lines,
    )


def _evaluation(failure: Failure) -> ImageBuildFailed:
    """Everything else is a mistake in an expression, or Nix says it in words that are not known here."""
    error = failure.log.errors[0] if failure.log.errors else None
    if error is None:
        message = f"{failure.ended.name} failed with exit code {failure.ended.code}"
        return failure.explained(message, hint="`-v` shows the whole command")
    own = failure.own_positions
    place = f" at {own[0]}" if own else ""
    what = f"Nix cannot evaluate the image{place}" if error.positions else f"{failure.ended.name} failed"
    return failure.explained(
        f"{what}: {_in_one_line(error.text)}",
        hint="correct the module that it names; `modules:` of vmrunner.yaml lists yours"
        if own
        else "the messages below say what is wrong; without your `modules:` it shows whether they are the reason",
        lines=failure.first_with_positions,
    )


def _in_one_line(text: str) -> str:
    """The first line and, where that only announces something (`Failed assertions:`), the next."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    found = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return found[:_LONGEST_MESSAGE].rstrip(" .:")


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


_EXPLANATIONS: Final[tuple[Callable[[Failure], ImageBuildFailed | None], ...]] = (
    _killed,
    _INTERRUPTED,
    _disk_full,
    _DAEMON,
    _BUILD_USERS,
    _TOO_OLD,
    _SEARCH_PATH,
    _hash_mismatch,
    _timed_out,
    _missing_feature,
    _network,
    _builder_failed,
    _FORBIDDEN,
)
"""In this order: what says more comes first."""

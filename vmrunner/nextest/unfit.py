"""What is said of an archive that a guest cannot run: what is missing, and the setting that gives it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from vmrunner.errors import ArchiveError
from vmrunner.host.debian_packages import package_with
from vmrunner.nextest.abilities import GuestAbilities

_OF_RUST = re.compile(r"lib(?:std|test|proc_macro|rustc_driver)-[0-9a-f]+\.so")
_NIX_LD = "in a module of `modules:`, `programs.nix-ld.libraries` takes the packages that have it"


def interpreter_missing(program: str, interpreter: str, guest: GuestAbilities) -> ArchiveError:
    """The guest has no such dynamic loader."""
    if guest.image == "nixos":
        hint = "`programs.nix-ld.enable = true` in a module of `modules:` gives the guest one"
    else:
        hint = "build the tests where the loader has its usual path (not on musl), or use an image that has this one"
    return ArchiveError(
        f"`{program}` needs the dynamic loader {interpreter}, which the image `{guest.image}` does not have",
        hint=hint,
    )


def libraries_missing(missing: Mapping[str, Sequence[str]], guest: GuestAbilities) -> ArchiveError:
    """Libraries that neither the archive nor the guest has, each with all files that need it."""
    first = next(iter(missing))
    return ArchiveError(
        f"`{missing[first][0]}` needs the library {first}{_and_more(missing)}, which the image `{guest.image}` does not have",
        hint=_hint_for_libraries(list(missing), guest),
        details=_needed_by({library: ", ".join(files) for library, files in missing.items()}),
    )


def _hint_for_libraries(libraries: Sequence[str], guest: GuestAbilities) -> str:
    if all(_OF_RUST.fullmatch(library) for library in libraries):
        return "make the archive again with cargo-nextest 0.9.72 or newer, which puts Rust's own libraries into it"
    if guest.image == "nixos":
        return _NIX_LD
    if guest.image != "debian":
        return "use an image that has it, or link the tests without it"
    known = {library: package_with(library) for library in libraries}
    packages = ", ".join(dict.fromkeys(package for package in known.values() if package))
    if packages:
        return f"`packages: [{packages}]` in vmrunner.yaml puts it into the image"
    return f"name the package that has it in `packages:` of vmrunner.yaml (`apt-file search {libraries[0]}` finds it)"


def store_paths_nowhere(
    nowhere: Mapping[str, str], guest: GuestAbilities, *, has_store: bool
) -> ArchiveError:
    """Store paths that neither the guest nor this host has, each with a file that needs it."""
    first = next(iter(nowhere))
    paths = " ".join(nowhere)
    host = "on this host" if has_store else "on this host, which has no Nix store"
    copied = f"`nix-store --export $(nix-store -qR {paths})` there and `nix-store --import` here"
    if has_store:
        hint = f"`nix-store --realise {paths}` fetches it where a cache has it; else {copied}, if it was built elsewhere"
    else:
        hint = f"where the archive was built they are: bring them here with {copied}"
    return ArchiveError(
        f"`{nowhere[first]}` needs {first}{_and_more(nowhere)}, which is neither in the image"
        f" `{guest.image}` nor {host}",
        hint=hint,
        details=_needed_by(nowhere),
    )


def store_path_not_shared(from_host: Mapping[str, str], image: str, *, reason: str) -> ArchiveError:
    """Store paths that this host has, but does not show to the guest for the given reason."""
    first = next(iter(from_host))
    return ArchiveError(
        f"`{from_host[first]}` needs {first}{_and_more(from_host)}, which this host has, but the image"
        f" `{image}` does not, and {reason}",
        hint="`--nix-store share` shows the guest this host's store",
        details=_needed_by(from_host),
    )


def _and_more(found: Collection[str]) -> str:
    """What follows the first of them where there are others."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _needed_by(files: Mapping[str, str]) -> str:
    return "\n".join(f"{needed}: needed by {file}" for needed, file in files.items())

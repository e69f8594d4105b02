"""The archive: where it comes from, how it is built and run."""

from __future__ import annotations

from typing import Annotated, Literal

from vmrunner.config.option import Option
from vmrunner.config.settings.types import Argument, FilePath, Settings


class ArchiveSettings(Settings):
    """The archive."""

    archive: Annotated[
        FilePath | None,
        Option(
            "archive", "FILE", "a nextest archive built elsewhere; without one it is built from the workspace"
        ),
    ] = None
    cargo_args: Annotated[
        tuple[Argument, ...],
        Option("archive", "ARG", "an argument for `cargo nextest archive`"),
    ] = ()
    nextest_args: Annotated[
        tuple[Argument, ...],
        Option("archive", "ARG", "an argument for nextest in the guest, put before those given after --"),
    ] = ()
    nix_store: Annotated[
        Literal["auto", "share", "copy", "off"],
        Option("archive", "HOW", "how store paths that the archive's programs need come to the guest: auto (share, where "
               "they seem to need it), share (it sees this host's store), copy (into the nixos image) or off"),
    ] = "auto"  # fmt: skip

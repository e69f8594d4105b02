"""The run as a whole: how machines start, how many there are, how long it may take."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vmrunner.config import checks, run_values
from vmrunner.config.option import Option, pairs_like
from vmrunner.config.settings.types import NO_ENTRIES, ReadOnly, Settings
from vmrunner.config.units import Duration, Size


class RunSettings(Settings):
    """The run."""

    start: Annotated[
        Literal["auto", "restored", "booted"],
        Option("run", "HOW", "how the machine starts: auto (restored from a memory template, which the first run "
               "makes; booted where that does not go), restored or booted"),
    ] = "auto"  # fmt: skip
    shards: Annotated[
        int,
        Field(ge=1, le=256),
        Option("run", "NUMBER", "machines to share the tests between, each with its slice of them"),
    ] = 1
    keep: Annotated[
        Literal["never", "on-failure", "always"],
        Option(
            "run", "WHEN", "when to keep the run's machine as a long-lived VM: never, on-failure or always"
        ),
    ] = "never"

    timeout: Annotated[
        Duration,
        AfterValidator(checks.lasting_at_most("720h")),
        Option("run", "TIME", "how long the whole run may take"),
    ] = Duration.parse("1h")
    boot_timeout: Annotated[
        Duration,
        AfterValidator(checks.lasting_at_most("720h")),
        Option("run", "TIME", "how long the guest may take until it answers"),
    ] = Duration.parse("5m")
    phase_timeouts: Annotated[
        Mapping[Annotated[str, AfterValidator(run_values.phase_name)],
                Annotated[Duration, AfterValidator(checks.at_most("720h"))]],
        *ReadOnly,
        Option("run", "PHASE=TIME", f"how long a phase of the run may take, 0 for no limit: {', '.join(run_values.PHASES)}", split=shlex.split,
               pairs=pairs_like("PHASE=TIME", "unit=20m")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip
    log_limit: Annotated[
        Size,
        AfterValidator(checks.between("1M", "1T")),
        Option("run", "SIZE", "how much nextest and the tests may print in one run"),
    ] = Size.parse("2G")
    output_limit: Annotated[
        Size,
        AfterValidator(checks.between("1M", "64T")),
        Option(
            "run",
            "SIZE",
            "how much room all that the guest writes to its share may take on this host's disk in one run",
        ),
    ] = Size.parse("8G")
    format: Annotated[
        Literal["text", "json"],
        Option("run", "FORMAT", "what the report on standard output is: text or json"),
    ] = "text"

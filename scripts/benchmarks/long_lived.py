"""Runs of the suite in a long-lived VM that is there for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.commands import timed
from benchmarks.suite_runs import CRATE, VMRUNNER, SuiteRun, vmrunner_run


@contextmanager
def vm_of_our_own(arguments: Sequence[str] = ()) -> Iterator[str]:
    """A VM by the crate's settings that is gone when the block ends. Raises NotMeasured where it does not come up."""
    name = f"bench-{os.getpid()}"
    timed([VMRUNNER, "up", name, "--config", CRATE / "vmrunner.yaml", *arguments])
    try:
        yield name
    finally:
        timed([VMRUNNER, "rm", "--force", name])


def run_suite(name: str) -> SuiteRun:
    """One run in the VM."""
    return vmrunner_run(["--vm", name])[0]

"""The same suite by a cold boot: the unit is wanted by multi-user.target, so the guest runs it by itself, and that is all.

Archive, sources and share are made exactly as `vmrunner test` makes them, by the same code in the same virtual
environment; nobody logs in, and the run is over when nextest's report is there.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.commands import timed
from benchmarks.image_files import ImageFiles, forget_others
from benchmarks.suite_runs import CACHE, CRATE, PYTHON, MachineShape, SuiteRun

_IMAGE_PREFIX = "cold-boot-image-"
_PROGRAM = Path(__file__).with_name("cold_boot_program.py")


def set_up(image: ImageFiles, *, cache: Path = CACHE) -> Path:
    """The directory of an image that is `image`, with the unit wanted by multi-user.target; made once."""
    directory = cache / f"{_IMAGE_PREFIX}{image.digest[:12]}"
    forget_others(directory, prefix=_IMAGE_PREFIX)
    if not directory.exists():
        timed([PYTHON, _PROGRAM, "prepare", image.directory, directory])
    return directory


def run_suite(image: Path, *, shape: MachineShape, cache: Path = CACHE) -> SuiteRun:
    """One run in a machine like `shape`, from the start of the command to the result.

    Raises NotMeasured where the tests did not pass.
    """
    settings = {
        "VMRUNNER_ACCEL": shape.accelerator,
        "VMRUNNER_CPU_MODEL": shape.cpu_model,
        "VMRUNNER_CPUS": str(shape.cpus),
        "VMRUNNER_MEMORY": f"{shape.memory >> 20}M",
        "XDG_STATE_HOME": str(cache / "state"),
    }
    done = timed([PYTHON, _PROGRAM, "run", image, CRATE], env=settings)
    told = json.loads(done.stdout)
    return SuiteRun(done.seconds, told["nextest_seconds"], told["phases"])

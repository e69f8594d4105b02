"""A launch of a machine with plain values, for tests that never start a guest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_qemu import write_program
from sample_images import write_image

from vmrunner.config.model import Config
from vmrunner.events import Emit, silent
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import Qemu
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.launch import Launch, LaunchRequest

TCG = Accelerator("tcg", "max", "TCG was asked for", "it reached 64-bit mode", ())


def sample_request(directory: Path, *, tool: NextestTool | None = None, **settings: Any) -> LaunchRequest:
    """What is to be launched, with a QEMU that says it should not have been started; `settings` are the Config's."""
    program = write_program(directory / "qemu-system-x86_64", "echo 'nobody was to start this' >&2; exit 1")
    run = RunDirectory("1", directory / "run", directory / "scratch")
    for path in (run.path, run.scratch):
        path.mkdir(exist_ok=True)
    return LaunchRequest(
        config=Config.model_validate(settings),
        run=run,
        image=write_image(directory / "image"),
        qemu=Qemu(program, "7.2.22"),
        accelerator=TCG,
        tool=tool,
    )


def sample_launch(directory: Path, *, emit: Emit = silent, **settings: Any) -> Launch:
    """A launch that has not begun."""
    return Launch(sample_request(directory, **settings), emit=emit, deadline=Deadline.after(20))

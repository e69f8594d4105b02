"""A launch of a machine with plain values, for tests that never start one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_qemu import write_program
from sample_images import write_image
from sample_plans import sample_plan

from vmrunner.config.model import Config
from vmrunner.events import Emit, silent
from vmrunner.guest.preparation import Preparation
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import Qemu
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.launch import Launch, LaunchRequest


def sample_request(directory: Path, *, tool: NextestTool | None = None, **settings: Any) -> LaunchRequest:
    """What is to be launched, with a QEMU that says it should not have been started; `settings` are the Config's."""
    program = write_program(directory / "qemu-system-x86_64", "echo 'nobody was to start this' >&2; exit 1")
    image = write_image(directory / "image")
    return LaunchRequest(
        config=Config.model_validate(settings),
        plan=sample_plan(qemu=program, serial_log=directory / "serial.log"),
        image=image,
        qemu=Qemu(program, "7.2.22"),
        tool=tool,
        preparation=Preparation(),
        qemu_log=directory / "qemu.log",
        started=lambda _pid: None,
    )


def sample_launch(directory: Path, *, emit: Emit = silent, **settings: Any) -> Launch:
    """A launch that has not begun."""
    return Launch(sample_request(directory, **settings), emit=emit, deadline=Deadline.after(20))

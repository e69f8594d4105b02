"""What a run would be, without running it: the accelerator, the image, QEMU's argument list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.events import Emit
from vmrunner.host.accelerator import Accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import locate_image
from vmrunner.machine.arguments import qemu_arguments
from vmrunner.run.emulator import choose_emulator
from vmrunner.run.host_store import shared_store
from vmrunner.run.planning import Places, plan_machine
from vmrunner.run.requirements import check_settings

_ROOM = Path("<run>")
_PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class Preview:
    """A plan to look at. `arguments` has stand-ins in <...> for what exists only while a run lasts."""

    accelerator: Accelerator
    image_directory: Path
    image_built: bool
    arguments: list[str]


def preview_run(config: Config, *, emit: Emit) -> Preview:
    """Plan a run and stop there. Nothing is built: an image that is not there yet is described by its recipe.

    Raises what a run would raise before it starts anything.
    """
    check_settings(config)
    qemu, accelerator = choose_emulator(config, emit=emit, deadline=Deadline.after(_PROBE_SECONDS))
    located = locate_image(ImageRequest.of(config), emit=emit)
    plan = plan_machine(
        config,
        image=located.image,
        qemu=qemu,
        accelerator=accelerator,
        places=Places("<run>", _ROOM / "overlay.qcow2", _ROOM / "in", _ROOM / "out", _ROOM / "serial.log"),
        authorized_key="<login key>",
        store=shared_store(config, None),
    )
    return Preview(
        accelerator, located.image.directory, located.built, qemu_arguments(plan, monitor_fd="<monitor>")
    )

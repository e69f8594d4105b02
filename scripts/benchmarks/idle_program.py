"""The program behind the memory figures; it runs in the project's virtual environment, where vmrunner is.

idle_program.py WORKSPACE COUNT     restore COUNT machines side by side as `vmrunner test` would, and print, as JSON, what
                                    each takes when it has been idle for some seconds, before and after a login
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.process_memory import process_memory
from vmrunner.config.load import load_config
from vmrunner.events import silent
from vmrunner.host.accelerator import choose_accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.qemu import find_qemu
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import resolve_image
from vmrunner.machine.machine import Machine, open_machine, restored
from vmrunner.machine.templates import Template
from vmrunner.nextest.tool import find_nextest
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.launch import LaunchRequest
from vmrunner.run.template_making import find_or_make

_IDLE_SECONDS = 3.0


def measure(workspace: Path, count: int) -> dict[str, list[dict[str, int]]]:
    """Bytes of each machine, in the order in which they were started."""
    config = load_config(directory=workspace, file=None, environ=os.environ, flags={}).config
    deadline = Deadline.after(config.timeout)
    qemu = find_qemu()
    accelerator = choose_accelerator(
        config.accel, config.cpu_model, qemu=qemu, emit=silent, deadline=deadline
    )
    image = resolve_image(ImageRequest.of(config), emit=silent, deadline=deadline)
    tool = None if image.manifest.nextest else find_nextest(deadline=deadline)
    with open_run_directory(silent) as run, ExitStack() as stack:
        machines = []
        for number in range(1, count + 1):
            request = LaunchRequest(config, run.shard(number), image, qemu, accelerator, tool)
            template = find_or_make(request.template, emit=silent, deadline=deadline)
            if template is None:
                raise RuntimeError("there is no memory template")
            machines.append(_restore(stack, request, template, deadline))
        time.sleep(_IDLE_SECONDS)
        before = [vars(process_memory(machine.pid)) for machine in machines]
        for machine in machines:
            machine.wait_ready(deadline)
        time.sleep(_IDLE_SECONDS)
        after = [vars(process_memory(machine.pid)) for machine in machines]
    return {"restored": before, "logged_in": after}


def _restore(stack: ExitStack, request: LaunchRequest, template: Template, deadline: Deadline) -> Machine:
    run: RunDirectory = request.run
    plan = restored(request.plan, template)
    opened = open_machine(
        plan, login_key=template.login_key, qemu_log=run.qemu_log, deadline=deadline, template=template
    )
    return stack.enter_context(opened)


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    match arguments:
        case [workspace, count]:
            print(json.dumps(measure(Path(workspace), int(count))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The program behind the cold boot comparison; it runs in the project's virtual environment, where vmrunner is.

cold_boot_program.py prepare IMAGE COLD       make the image directory COLD from the image directory IMAGE
cold_boot_program.py run COLD WORKSPACE       run the workspace's suite in it, and print its times as JSON
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from vmrunner.config.load import load_config
from vmrunner.config.model import Config
from vmrunner.events import Recorder, phase, silent
from vmrunner.guest.key import make_login_key
from vmrunner.guest.unit import UNIT
from vmrunner.host.accelerator import choose_accelerator
from vmrunner.host.deadline import Deadline
from vmrunner.host.files import directory_made_atomically
from vmrunner.host.log_end import read_end
from vmrunner.host.paths import archives_dir
from vmrunner.host.process import run_command
from vmrunner.host.qemu import find_qemu
from vmrunner.image.manifest import open_image, record, write_manifest
from vmrunner.machine.machine import Machine, open_machine
from vmrunner.nextest.archive import make_archive
from vmrunner.nextest.extract import extract_archive
from vmrunner.nextest.junit import parse_cases
from vmrunner.nextest.summary import parse_summary
from vmrunner.nextest.tool import find_nextest
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.planning import Places, plan_machine
from vmrunner.run.staging import StagedJob, sources_of, stage_job

_PREPARE_SECONDS = 300.0
_POLL_SECONDS = 0.01
_LOG_BYTES = 1 << 16
_LAST_BYTES = 64
_LAST_TAG = "</testsuites>"
_UNITS = "/etc/systemd/system"


def prepare(source: Path, destination: Path) -> None:
    """Copy an image and let its multi-user.target want the unit, as `systemctl enable` would.

    On the kernel command line `systemd.wants=` would do, but the image masks the generator that reads it
    (systemd-debug-generator(8)); a link on the disk is the plain case anyway.
    """
    image = open_image(source)
    deadline = Deadline.after(_PREPARE_SECONDS)
    with directory_made_atomically(destination) as made:
        for name in image.manifest.files:
            run_command(["cp", "--sparse=always", image.directory / name, made / name], deadline=deadline)
        disk = made / image.manifest.root_disk
        link = f"symlink {_UNITS}/multi-user.target.wants/{UNIT} {_UNITS}/{UNIT}"
        debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin") or "debugfs"
        run_command([debugfs, "-w", "-R", link, disk], deadline=deadline)
        files = {**image.manifest.files, image.manifest.root_disk: record(disk)}
        if files == image.manifest.files:
            raise RuntimeError(f"debugfs did not change {disk}")
        write_manifest(made, image.manifest.model_copy(update={"files": files}))


def run(cold_image: Path, workspace: Path) -> dict[str, Any]:
    """Run the suite: what `vmrunner test` does, without the connection to the guest. Times in seconds."""
    loaded = load_config(directory=workspace, file=None, environ=os.environ, flags={"image": str(cold_image)})
    config, deadline = loaded.config, Deadline.after(loaded.config.timeout)
    recorder = Recorder(silent)
    with ExitStack() as stack:
        directory = stack.enter_context(open_run_directory(recorder))
        job = _stage(stack, directory, config, workspace=workspace, emit=recorder, deadline=deadline)
        machine = stack.enter_context(
            _start(directory, config, image=cold_image, emit=recorder, deadline=deadline)
        )
        with phase(recorder, "boot and tests", "Waiting for nextest's report"):
            _wait_for(directory.out / job.junit, machine, deadline)
        outcomes = [case.outcome for case in parse_cases((directory.out / job.junit).read_bytes())]
        summary = parse_summary(read_end(directory.nextest_log, size=_LOG_BYTES))
    if summary is None or not outcomes or set(outcomes) != {"passed"}:
        raise RuntimeError(f"the tests did not pass: {outcomes}; see {directory.path}")
    return {
        "nextest_seconds": summary.seconds,
        "phases": {item.name: round(item.seconds, 3) for item in recorder.phases},
    }


def _stage(
    stack: ExitStack,
    directory: RunDirectory,
    config: Config,
    *,
    workspace: Path,
    emit: Recorder,
    deadline: Deadline,
) -> StagedJob:
    tool = find_nextest(deadline=deadline)
    archive = make_archive(
        workspace.resolve(),
        tool=tool,
        cargo_args=config.cargo_args,
        destination=directory.scratch / "archive.tar.zst",
        emit=emit,
        deadline=deadline,
        color=False,
    )
    extracted = stack.enter_context(
        extract_archive(archive, cache=archives_dir(), emit=emit, deadline=deadline)
    )
    return stage_job(
        config,
        directory,
        workspace=sources_of(extracted.info, given=workspace, built_here=True),
        extracted=extracted,
        tool=tool,
        nextest_args=(),
        environment=config.guest_env(os.environ),
        color=False,
        emit=emit,
        deadline=deadline,
    )


def _start(
    directory: RunDirectory, config: Config, *, image: Path, emit: Recorder, deadline: Deadline
) -> AbstractContextManager[Machine]:
    opened, qemu, key = open_image(image), find_qemu(), make_login_key()
    accelerator = choose_accelerator(config.accel, config.cpu_model, qemu=qemu, emit=emit, deadline=deadline)
    plan = plan_machine(
        config,
        image=opened,
        qemu=qemu,
        accelerator=accelerator,
        places=Places(
            f"cold-boot-{directory.id}",
            directory.overlay,
            directory.inbox,
            directory.out,
            directory.serial_log,
        ),
        authorized_key=key.public,
    )
    return open_machine(plan, login_key=key, qemu_log=directory.qemu_log, deadline=deadline)


def _wait_for(report: Path, machine: Machine, deadline: Deadline) -> None:
    """Nextest writes its report at the end of the run, and the whole of it is there when its last tag is."""
    while not read_end(report, size=_LAST_BYTES).rstrip().endswith(_LAST_TAG):
        machine.check_alive()
        if not deadline.pause(_POLL_SECONDS):
            raise RuntimeError(f"no report in time\n{machine.serial_tail()}")


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    match arguments:
        case ["prepare", source, destination]:
            prepare(Path(source), Path(destination))
        case ["run", cold_image, workspace]:
            print(json.dumps(run(Path(cold_image), Path(workspace))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

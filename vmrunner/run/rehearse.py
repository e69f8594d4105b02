"""One run of the unit that tests nothing of anybody's: it warms a guest, and shows that one keeps the contract."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path, PurePosixPath

from vmrunner.errors import UnitFailed
from vmrunner.guest import inbox
from vmrunner.guest.preparation import Preparation
from vmrunner.guest.ssh import Guest
from vmrunner.guest.unit import UnitRun, journal_of_unit
from vmrunner.host.deadline import Deadline
from vmrunner.nextest import rehearsal
from vmrunner.nextest.arguments import GuestPaths, guest_command
from vmrunner.nextest.configuration import tool_config
from vmrunner.nextest.tool import NextestTool


def write_rehearsal(share: Path, tool: NextestTool | None) -> None:
    """Fill the `in` share for one run of nextest on nothing of anybody's."""
    layout = inbox.GuestLayout(inbox.REMAPPED_WORKSPACE, inbox.REMAPPED_WORKSPACE / "target", remapped=False)
    for name in (inbox.SOURCES, inbox.TARGET, inbox.NEXTEST_FILES, inbox.BINARIES):
        (share / name).mkdir(mode=0o700)
    (share / inbox.SOURCES / "target").mkdir()
    if tool:
        shutil.copy2(tool.path.resolve(), share / inbox.BINARIES / inbox.CARRIED_NEXTEST.name)
    for name, text in rehearsal.rehearsal_files(layout.target).items():
        metadata = name.endswith(".json")
        (share / (inbox.NEXTEST_FILES if metadata else inbox.TARGET) / name).write_text(text)
    (share / inbox.TARGET / rehearsal.TEST_BINARY).chmod(0o755)
    (share / inbox.NEXTEST_FILES / "vmrunner.toml").write_text(tool_config(inbox.OUT / inbox.STORE))
    files = inbox.IN / inbox.NEXTEST_FILES
    paths = GuestPaths(
        nextest=inbox.installed_nextest(tool.identity) if tool else PurePosixPath("cargo-nextest"),
        binaries_metadata=files / rehearsal.BINARIES_METADATA,
        cargo_metadata=files / rehearsal.CARGO_METADATA,
        tool_config=files / "vmrunner.toml",
        workspace_remap=None,
        target_dir_remap=None,
    )
    job = inbox.Job(layout=layout, command=tuple(guest_command([], paths=paths, color=False)), network="user")
    for name, text in inbox.render_job(job).items():
        (share / name).write_text(text)


def rehearse(guest: Guest, tool: NextestTool | None, *, out: Path, deadline: Deadline) -> None:
    """Install nextest, and run the unit as every later run will; `out` is what the host sees of its share.

    Raises UnitFailed where the unit does not end well.
    """
    if tool:
        destination = inbox.installed_nextest(tool.identity)
        install = f"systemctl start run-vmrunner-in.mount && install -D {inbox.CARRIED_NEXTEST} {destination}"
        done = guest.execute(["sh", "-c", install], deadline=deadline)
        if done.code:
            raise UnitFailed("cargo-nextest could not be put into the guest", details=done.stderr.strip())
    prelude = shlex.join(Preparation(clock_shift=1e-6).command_for_run("rehearsal"))
    run = UnitRun(guest, prelude=prelude, deadline=deadline)
    while (status := run.poll()) is None:
        if not deadline.pause(0.05):
            raise UnitFailed("the rehearsal of a test run did not end in time")
    if not status.exited or status.main_status:
        log = out / inbox.NEXTEST_LOG
        raise UnitFailed(
            f"the rehearsal of a test run ended with {status.result}",
            details=journal_of_unit(guest, deadline=deadline) + (log.read_text() if log.is_file() else ""),
        )

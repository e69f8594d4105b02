"""One long-lived VM for all tests of a module, and the archive whose one test does in it what a script says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from command_line import CommandLine, Finished, Running
from crate_copies import archive_crate, copy_crate
from long_lived import LongLivedVm

from vmrunner.host.paths import cache_dir

RUN_SCRIPT = ("--", "-E", "test(/::script$/)")


@contextmanager
def shared_vm(name: str, *, image: Path, state: Path, flags: Sequence[str] = ()) -> Iterator[LongLivedVm]:
    """A VM that is up, made with these flags, with a runtime directory of its own; whatever happens, nothing of it is left in the end."""
    with tempfile.TemporaryDirectory(prefix="vm-") as runtime:
        variables: dict[str, str | None] = {"VMRUNNER_IMAGE": str(image), "XDG_RUNTIME_DIR": runtime}
        vm = LongLivedVm(CommandLine(state, cache_dir().parent, None, variables), name)
        try:
            vm.up(*flags)
            yield vm
        finally:
            vm.vmrunner.abandon_all()
            removed = vm.run("rm", "--force")
        assert removed.code == 0, removed.stderr
        vm.assert_nothing_left()


def is_up(vm: LongLivedVm) -> bool:
    """Whether its QEMU runs, without asking vmrunner."""
    return (vm.directory / "vm.json").exists() and bool(vm.processes())


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that was killed."""
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=10)


@dataclass(frozen=True)
class ScriptedCrate:
    """A copy of the crate `scripted`, and a nextest archive of it."""

    directory: Path
    archive: Path

    @classmethod
    def make(cls, place: Path) -> ScriptedCrate:
        """Copy it to a place below `place`, and build the archive."""
        crate = copy_crate("scripted", place / "scripted")
        return cls(crate, archive_crate(crate, place / "scripted.tar.zst"))

    def start(self, vmrunner: CommandLine, script: str, *flags: str) -> Running:
        """Start a run whose one test is `script`."""
        given = ("--archive", str(self.archive), "--env", f"SCRIPT={script}", *flags)
        return vmrunner.start("test", self.directory, *given, *RUN_SCRIPT)

    def run(self, vmrunner: CommandLine, script: str, *flags: str) -> Finished:
        """Run it to its end."""
        return self.start(vmrunner, script, *flags).finish()

"""A long-lived VM as its user has it: through the command line alone, with a look at what is on the host."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from command_line import CommandLine, Finished


@dataclass(frozen=True)
class LongLivedVm:
    """The VM `name` of that command line."""

    vmrunner: CommandLine
    name: str

    @property
    def directory(self) -> Path:
        """Where it keeps its files."""
        return self.vmrunner.state_home / "vmrunner" / "vms" / self.name

    @property
    def inbox(self) -> Path:
        """The share that its guest reads."""
        digest = hashlib.sha256(bytes(self.directory)).hexdigest()[:12]
        return self.vmrunner.cache_home / "vmrunner" / "inboxes" / f"{self.name}-{digest}"

    @property
    def record(self) -> dict[str, Any]:
        """The content of vm.json."""
        document: dict[str, Any] = json.loads((self.directory / "vm.json").read_text())
        return document

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        pid: int = self.record["process"]["pid"]
        return pid

    @property
    def listing(self) -> dict[str, Any]:
        """What `ps --json` says of it."""
        listed = json.loads(self.vmrunner.run("ps", "--json").stdout)
        return next(entry for entry in listed if entry["name"] == self.name)

    def up(self, *arguments: str) -> Finished:
        """Bring it up; fails where that does."""
        finished = self.vmrunner.run("up", self.name, *arguments)
        assert finished.code == 0, finished.stderr
        return finished

    def run(self, verb: str, *arguments: str) -> Finished:
        """A verb with its name."""
        return self.vmrunner.run(verb, self.name, *arguments)

    def shell(self, script: str) -> str:
        """What a shell in the guest prints; fails where it does."""
        finished = self.vmrunner.run("exec", self.name, "--", "sh", "-c", script)
        assert finished.code == 0, finished.stderr
        return finished.stdout

    def edit_process(self, **fields: object) -> None:
        """Change what the record says of its process."""
        record = self.record
        record["process"].update(fields)
        (self.directory / "vm.json").write_text(json.dumps(record))

    def processes(self) -> list[psutil.Process]:
        """Every live process that has its disk on the command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(str(self.directory) in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clock_error(self) -> float:
        """By how many seconds its clock is wrong at least."""
        before = time.time()
        shown = float(self.shell("date +%s.%N"))
        return max(before - shown, shown - time.time(), 0.0)

    def assert_nothing_left(self) -> None:
        """Neither a file nor a process nor a socket of it is there."""
        assert self.processes() == []
        assert not self.directory.exists()
        assert not self.inbox.exists()
        runtime = Path(self.vmrunner.environment["XDG_RUNTIME_DIR"]) / "vmrunner"
        assert not runtime.exists() or os.listdir(runtime) == []  # noqa: PTH208 -- names are all that is wanted
        locks = [*self.directory.parent.glob(".locks/*"), *self.directory.parent.glob(".holds/*")]
        assert locks == []

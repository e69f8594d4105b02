"""Stand-ins for the machines of shards and for what runs in them; threads, SSH and nextest's files are real."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NoReturn

import paramiko
from fake_sshd import FakeSshd, answer
from sample_plans import sample_plan

from vmrunner.errors import GuestLost
from vmrunner.events import Emit, Event, Output
from vmrunner.guest.ssh import Guest
from vmrunner.machine.monitor import MonitorLost
from vmrunner.run.directory import RunDirectory
from vmrunner.run.phase_limits import PhaseLimits
from vmrunner.run.report import Report
from vmrunner.run.shards import Shard, run_shards

JUNIT = PurePosixPath("store/default/junit.xml")
PATIENCE_SECONDS = 10.0


@dataclass
class Part:
    """One shard's nextest: the test it runs, with which exit code it ends, and how it behaves meanwhile.

    It prints and then waits for `go_on`; `obedient` is whether it ends when it is asked to.
    """

    test: str
    code: int = 0
    go_on: Callable[[], object] = bool
    obedient: bool = True
    endless: bool = False
    asked_to_stop: threading.Event = field(default_factory=threading.Event)
    _begun: threading.Event = field(default_factory=threading.Event)
    _waiting: list[paramiko.Channel] = field(default_factory=list)

    def behave(self, run: RunDirectory) -> Callable[[str, paramiko.Channel], None]:
        """What the guest's sshd does with commands."""

        def unit(command: str, channel: paramiko.Channel) -> None:
            if "systemctl kill" in command:
                assert self._begun.wait(PATIENCE_SECONDS)
                self.asked_to_stop.set()
                answer()(command, channel)
                if self.obedient:
                    self._end(run, self._waiting[0])
                return
            (run.out / "started").touch()
            self._waiting.append(channel)
            with (run.out / "nextest.log").open("a") as log, (run.out / "stdout.log").open("a") as stdout:
                log.write(f"  START {self.test}\n")
                stdout.write(f"from {self.test}")
            self._begun.set()
            self.go_on()
            if not self.endless:
                self._end(run, channel)

        return unit

    def _end(self, run: RunDirectory, channel: paramiko.Channel) -> None:
        failed = int(self.code == 100)
        counts = f"{1 - failed} passed, {failed} failed, 1 skipped"
        with (run.out / "nextest.log").open("a") as log:
            if self.code != 4:
                log.write(f"     Summary [   0.500s] 1 test run: {counts}\n")
        if self.code != 4:
            (run.out / JUNIT).parent.mkdir(parents=True)
            (run.out / JUNIT).write_text(self._junit(failed))
        state = "failed" if self.code else "active"
        show = (
            f"ActiveState={state}\nLoadState=loaded\nResult=x\nExecMainCode=1\nExecMainStatus={self.code}\n"
        )
        answer(0, show.encode())("", channel)

    def _junit(self, failed: int) -> str:
        inside = '<failure type="test failure" message="no"/>' if failed else ""
        return (
            f'<testsuites name="nextest-run"><testsuite name="demo" tests="1" failures="{failed}" errors="0">'
            f'<testcase name="{self.test}" classname="demo" time="0.5">{inside}</testcase>'
            "</testsuite></testsuites>"
        )


class StandInMachine:
    """What a run needs of a machine: a guest, whether it lives, and an end."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.plan = sample_plan()
        self.stopped = False
        self.demise: Exception | None = None

    @property
    def monitor(self) -> NoReturn:
        """It has no QEMU that could be asked."""
        raise MonitorLost("a stand-in has no monitor")

    def check_alive(self) -> None:
        if self.demise:
            raise self.demise
        if self.stopped:
            raise GuestLost("QEMU was told to quit")

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Crew:
    """All shards of one run."""

    report: Report
    shards: list[Shard] = field(default_factory=list)
    machines: list[StandInMachine] = field(default_factory=list)
    guests: list[FakeSshd] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def run(
        self,
        *,
        emit: Emit | None = None,
        seconds: float = PATIENCE_SECONDS,
        limits: PhaseLimits | None = None,
    ) -> None:
        limits = limits or PhaseLimits({})
        run_shards(
            self.report, self.shards, limits,
            emit=limits.watching(emit or self.events.append), deadline=limits.deadline(seconds),
        )  # fmt: skip

    def printed(self, stream: str) -> list[str]:
        """The lines that came out, each behind its label."""
        return sorted(
            f"{event.label} {line}"
            for event in self.events
            if isinstance(event, Output) and event.stream == stream
            for line in event.data.decode().splitlines()
        )

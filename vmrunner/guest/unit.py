"""The systemd unit that runs nextest: start it, follow it over SSH, read systemd's own verdict on it."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass

from vmrunner.errors import BootTimeout, GuestError, GuestLost, RunTimeout
from vmrunner.guest.ssh import Completed, ConnectionLost, Guest, RemoteCommand
from vmrunner.host.deadline import Deadline

log = logging.getLogger(__name__)

UNIT = "cargo-nextest.service"
_MOUNT_UNITS = ("run-vmrunner-in.mount", "run-vmrunner-out.mount")
_PROPERTIES = (
    "ActiveState", "SubState", "LoadState", "Result", "ExecMainCode", "ExecMainStatus", "MemoryPeak", "Job",
)  # fmt: skip
# It has a job from the moment on in which somebody asks the guest to shut down or reboot (systemd.special(7)).
_SHUTDOWN = "shutdown.target"
_SHOW = ("systemctl", "show", UNIT, _SHUTDOWN, *(f"--property={name}" for name in _PROPERTIES))
# What `_SHOW` would say of a unit whose start went well: a oneshot unit does that when its process ended with 0.
_SUCCEEDED = "ActiveState=active\\nLoadState=loaded\\nResult=success\\nExecMainCode=1\\nExecMainStatus=0\\n"
_PRELUDE_FAILED = "prelude-failed"
# One command, and as few processes as can be: each costs 50 to 100 ms under TCG. `start` of a oneshot unit returns when
# it has ended. An armed unit is started already and waits at the gate (see `prepare` in the image): `start` joins it
# before the prelude lets it go, so that it cannot have ended, and be started anew, by then.
_GATE = "/run/vmrunner/gate"
_START_AND_SHOW = """waiting=
[ ! -p {gate} ] || {{ systemctl start {unit} & waiting=$!; }}
{prelude} || {{ [ -z "$waiting" ] || kill $waiting; echo {failed}; exit 1; }}
if [ -n "$waiting" ]; then wait $waiting; else systemctl start {unit}; fi
if [ $? = 0 ]; then printf '{succeeded}'; {afterwards}; else exec {show}; fi
"""
_SHOW_SECONDS = 30.0
_RECONNECT_SECONDS = 60.0
_POLL_SECONDS = 0.5
_UNANSWERED_LIMIT = 10


@dataclass(frozen=True)
class UnitStatus:
    """What `systemctl show` says of the unit (systemctl(1), org.freedesktop.systemd1(5)).

    `main_code` is how the main process ended (CLD_EXITED is 1, CLD_KILLED 2, CLD_DUMPED 3; 0: it never ran),
    `main_status` its exit status or the signal's number. `shutting_down` is whether the whole guest is on its way down.
    """

    active_state: str
    load_state: str
    result: str
    main_code: int
    main_status: int
    memory_peak: int | None
    shutting_down: bool = False

    @property
    def cut_short(self) -> bool:
        """Whether a shutdown of the guest ended the main process; it says nothing then, unless it ended well."""
        return self.shutting_down and not (self.exited and self.main_status == 0)

    @property
    def ended(self) -> bool:
        """Whether the unit is neither starting nor stopping."""
        return self.active_state in ("active", "inactive", "failed")

    @property
    def exited(self) -> bool:
        """Whether the main process ran and ended by itself."""
        return self.main_code == 1

    @classmethod
    def parse(cls, text: str) -> UnitStatus:
        """Read the output of `systemctl show`; properties that are missing count as never run."""
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in text.split("\n\n")
        ]
        values, shutdown = blocks[0], blocks[1] if len(blocks) > 1 else {}

        def number(name: str) -> int:
            return int(values[name]) if values.get(name, "").isdecimal() else 0

        return cls(
            active_state=values.get("ActiveState", "unknown"),
            load_state=values.get("LoadState", "unknown"),
            result=values.get("Result", "unknown"),
            main_code=number("ExecMainCode"),
            main_status=number("ExecMainStatus"),
            memory_peak=number("MemoryPeak") or None,
            shutting_down=bool(shutdown.get("Job")) or shutdown.get("ActiveState") == "active",
        )


class UnitRun:
    """One run of the unit. `poll` it until it gives a status; a broken connection is made again.

    `prelude` is a shell command to be run before the unit is started, if it is not empty; where it fails, the unit is not
    started, and `way_out` is the error's hint. `afterwards` is one that is left running when the unit has ended well.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        prelude: str = "",
        way_out: str | None = None,
        afterwards: str = "",
        deadline: Deadline,
    ) -> None:
        self._guest = guest
        self._deadline = deadline
        self._way_out = way_out
        self._start_line = _START_AND_SHOW.format(
            gate=_GATE,
            unit=UNIT,
            prelude=prelude or ":",
            failed=_PRELUDE_FAILED,
            succeeded=_SUCCEEDED,
            afterwards=f"{{ {afterwards} </dev/null >/dev/null 2>&1 & }}" if afterwards else ":",
            show=shlex.join(_SHOW),
        )
        self._command: RemoteCommand | None = None
        self.reconnections = 0
        self._unanswered = 0
        self._start()

    def poll(self) -> UnitStatus | None:
        """The unit's status where it has ended.

        Raises GuestError where the prelude failed, GuestLost where SSH does not come back, RunTimeout where the time is
        up before it does, and what the guest's `alive` raises where the machine died.
        """
        try:
            done = self._command.poll() if self._command else self._show()
        except ConnectionLost as error:
            log.debug("ssh: %s", error)
            self._reconnect(error)
            return None
        if done is None:
            return None
        if done.stdout.startswith(_PRELUDE_FAILED):
            raise GuestError(
                "the guest could not be prepared for the run",
                hint=self._way_out,
                details=done.stderr.strip(),
            )
        status = UnitStatus.parse(done.stdout)
        if status.ended:
            return status
        self._command = None
        self._note_silence(status, done)
        self._deadline.pause(_POLL_SECONDS)
        return None

    def interrupt(self, *, deadline: Deadline) -> None:
        """Send nextest SIGINT: it cancels the tests, writes its report and ends. Raises ConnectionLost.

        It has a deadline of its own, because it is called when that of the run has passed.
        """
        self._guest.execute(
            ["systemctl", "kill", "--kill-whom=main", "--signal=SIGINT", UNIT],
            deadline=deadline,
        )

    def _note_silence(self, status: UnitStatus, done: Completed) -> None:
        """Do not ask for ever a systemd that gives no answer any more."""
        self._unanswered = self._unanswered + 1 if status.load_state == "unknown" else 0
        if self._unanswered >= _UNANSWERED_LIMIT:
            raise GuestLost(
                "the guest's systemd does not answer any more", details=done.stderr.strip() or None
            )

    def _start(self) -> None:
        try:
            self._command = self._guest.begin(self._start_line, deadline=self._deadline)
        except ConnectionLost as error:
            self._reconnect(error)
            self._start_again()

    def _start_again(self) -> None:
        try:
            self._command = self._guest.begin(self._start_line, deadline=self._deadline)
        except ConnectionLost as error:
            raise GuestLost(
                "the guest stopped answering over SSH before the tests started", details=str(error)
            ) from error

    def _show(self) -> Completed:
        return self._guest.execute(_SHOW, deadline=self._deadline.within(_SHOW_SECONDS))

    def _reconnect(self, error: ConnectionLost) -> None:
        """Log in again. From here on the unit is only looked at: starting it a second time could run it twice."""
        self.reconnections += 1
        self._command = None
        try:
            self._guest.connect(self._deadline.within(_RECONNECT_SECONDS))
        except BootTimeout as timeout:
            if self._deadline.passed:
                raise RunTimeout(
                    "the time for the run was up while the guest did not answer over SSH",
                    details=f"{error}\n{timeout.details}",
                ) from timeout
            raise GuestLost(
                "the guest stopped answering over SSH while the tests ran",
                hint="did a test stop sshd, the network, or the whole guest?",
                details=f"{error}\n{timeout.details}",
            ) from timeout


def journal_of_unit(guest: Guest, *, deadline: Deadline, lines: int = 20) -> str:
    """The last lines that the unit and its mounts left in the guest's journal; a remark where they cannot be had."""
    units = [f"--unit={name}" for name in (UNIT, *_MOUNT_UNITS)]
    try:
        done = guest.execute(
            ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", *units],
            deadline=deadline.within(_SHOW_SECONDS),
        )
    except ConnectionLost as error:
        return f"(the guest's journal could not be read: {error})"
    return done.stdout.strip()

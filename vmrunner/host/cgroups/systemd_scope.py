"""CPU shares by systemd: a scope unit made for a running process (systemd.scope(5), org.freedesktop.systemd1(5))."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from vmrunner.errors import HostError
from vmrunner.host.cgroups.hierarchy import PROC, Hierarchy, find_v2, has_controller
from vmrunner.host.cgroups.share import CpuShare
from vmrunner.host.cgroups.v2 import CONTROLLER, read_group
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command

RUN = Path("/run")
_SECONDS = 5.0
_POLL_SECONDS = 0.02
_QUOTA_US_PER_PERCENT = 10_000
"""`CPUQuotaPerSecUSec`: microseconds a second."""
_SUFFIX = ".scope"
_START = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
_DELEGATE = (
    "let root run `systemctl edit user@.service`, add `[Service]` and `Delegate=pids memory cpu`, and log in again "
    "(systemd 252 and later do so by themselves)"
)


@dataclass(frozen=True)
class SystemdScope:
    """A transient scope of the system's systemd for root, of the user's own for everybody else.

    systemd moves the process there even out of a login's session, which the user could not, and removes the scope
    when its last process ends. A user's scopes end with their last login unless they linger (loginctl(1)).
    """

    tree: Hierarchy | None
    run: Path = RUN
    uid: int = field(default_factory=os.geteuid)

    @classmethod
    def on_host(cls, proc: Path = PROC) -> SystemdScope:
        """As this computer is set up."""
        return cls(find_v2(proc))

    def present(self) -> bool:
        """See `Way`."""
        # sd_booted(3): the directory is there where systemd is the init system.
        booted = (self.run / "systemd/system").is_dir()
        return booted and self.tree is not None and has_controller(self.tree.mount, CONTROLLER)

    def obstacle(self) -> str | None:
        """See `Way`."""
        if self.tree is None or not self.present():
            return "systemd with cgroup v2 does not run this computer: it takes Linux 4.15 and systemd 236"
        if missing := [name for name in ("busctl", "systemctl") if shutil.which(name) is None]:
            return f"`{missing[0]}` is not on PATH: install systemd's programs"
        if self.uid == 0:
            bus = self.run / "dbus/system_bus_socket"
            return None if bus.exists() else f"there is no system bus at {bus}: install and start dbus"
        if not (self._runtime / "bus").exists():
            return (
                f"no systemd runs for this user ({self._runtime}/bus is missing): install dbus-user-session and log in "
                "again, or run `loginctl enable-linger`"
            )
        service = f"user.slice/user-{self.uid}.slice/user@{self.uid}.service"
        if not has_controller(self.tree.mount / service, CONTROLLER):
            return f"systemd does not hand the cpu controller to this user: {_DELEGATE}"
        return None

    def holds(self, group: str, pid: int) -> bool:
        """See `Way`."""
        return self.tree is not None and self.tree.named(group + _SUFFIX, pid) is not None

    def put(self, group: str, pid: int, share: CpuShare) -> CpuShare:
        """See `Way`."""
        if self.holds(group, pid):
            self._change(group + _SUFFIX, share)
        else:
            self._start(group + _SUFFIX, pid, share)
        until = Deadline.after(_SECONDS)
        while (found := self.read(group, pid)) is None and until.pause(_POLL_SECONDS):
            pass
        if found is None:
            raise HostError(
                f"systemd did not move process {pid} into {group}{_SUFFIX} in {_SECONDS:.0f} s",
                hint=f"`{' '.join(self._argv('systemctl', 'status', group + _SUFFIX))}` and the journal say why",
            )
        return found

    def read(self, group: str, pid: int) -> CpuShare | None:
        """See `Way`."""
        directory = self.tree.named(group + _SUFFIX, pid) if self.tree else None
        return read_group(directory) if directory else None

    def drop(self, group: str) -> None:
        """Nothing to do: systemd removes a scope with its last process."""

    def ends_with_login(
        self, lingering: Path = Path("/var/lib/systemd/linger"), user: str | None = None
    ) -> bool:
        """Whether a process put into a scope is ended when this user's last login ends."""
        return self.uid != 0 and not (lingering / (user or _user_name(self.uid))).exists()

    @property
    def _runtime(self) -> Path:
        return self.run / "user" / str(self.uid)

    def _start(self, unit: str, pid: int, share: CpuShare) -> None:
        properties = [
            ["Description", "s", f"vmrunner: process {pid}"],
            ["CollectMode", "s", "inactive-or-failed"],
            ["PIDs", "au", "1", str(pid)],
            # Said even where it is the default: without a setting systemd would leave the controller off.
            ["CPUWeight", "t", str(share.weight_or_default)],
        ]
        if share.quota is not None:
            properties.append(["CPUQuotaPerSecUSec", "t", str(share.quota * _QUOTA_US_PER_PERCENT)])
        words = [word for one in properties for word in one]
        arguments = [
            *_START,
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            unit,
            "fail",
            str(len(properties)),
            *words,
            "0",
        ]
        self._run("busctl", "call", *arguments)

    def _change(self, unit: str, share: CpuShare) -> None:
        quota = "" if share.quota is None else f"{share.quota}%"
        settings = [f"CPUWeight={share.weight_or_default}", f"CPUQuota={quota}"]
        self._run("systemctl", "set-property", "--runtime", unit, *settings)

    def _run(self, program: str, *arguments: str) -> None:
        run_command(
            self._argv(program, *arguments),
            deadline=Deadline.after(_SECONDS),
            env=self._environment(),
            hint="`journalctl -n 20` may say why systemd refused",
        )

    def _argv(self, program: str, *arguments: str) -> list[str]:
        return [program, *([] if self.uid == 0 else ["--user"]), *arguments]

    def _environment(self) -> dict[str, str]:
        """A cron job, or a desktop with a bus of its own, does not name the bus that the user's systemd is on."""
        if self.uid == 0:
            return {}
        return {
            "XDG_RUNTIME_DIR": str(self._runtime),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self._runtime}/bus",
        }


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

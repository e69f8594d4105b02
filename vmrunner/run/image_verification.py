"""Whether an image keeps the guest contract: boot it, and look at each line of it from inside and outside.

The contract is in README ("Images"); what a manifest says of an image is compared with what is found.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from vmrunner.config.model import Config
from vmrunner.config.units import Size
from vmrunner.errors import HostError, RunTimeout, VmrunnerError
from vmrunner.events import Emit, phase
from vmrunner.guest import inbox
from vmrunner.guest.clock import read_clock
from vmrunner.guest.login_methods import login_methods
from vmrunner.guest.ssh import Guest
from vmrunner.guest.undo import clear_away
from vmrunner.guest.unit import UNIT
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question, problem_of, run_checks
from vmrunner.image.manifest import Image
from vmrunner.image.store import hold
from vmrunner.machine.machine import Machine
from vmrunner.nextest.tool import NextestTool, find_nextest
from vmrunner.run.directory import RunDirectory, open_run_directory
from vmrunner.run.emulator import choose_emulator
from vmrunner.run.launch import LaunchRequest, launching
from vmrunner.run.rehearse import rehearse, write_rehearsal

_LARGER_BYTES: Final = 1 << 30
_CLOCK_MAY_BE_OFF_SECONDS: Final = 5.0
# The first test run of a cold guest on a busy host; all else is quick.
_QUESTION_SECONDS: Final = 120.0
_ROOM_FOR_THE_FILE_SYSTEM: Final = 0.9
_UNIT_PROPERTIES: Final = {
    "Type": "oneshot",
    "RemainAfterExit": "yes",
    "Restart": "no",
    "StateDirectory": "cargo-nextest",
    "StateDirectoryMode": "0750",
    "WorkingDirectory": "/var/lib/cargo-nextest",
    "TimeoutStartUSec": "infinity",
    "OOMPolicy": "stop",
}
_PROGRAMS: Final = tuple(f"/usr/lib/vmrunner/{name}" for name in ("clock", "prepare", "unit"))


def verify_image(image: Image, config: Config, *, emit: Emit, deadline: Deadline) -> tuple[Check, ...]:
    """Boot `image` and ask it all that the contract says; what is wrong with it is a problem among the checks.

    The machine has a larger disk than the image, so that its growing is seen. Raises HostError where this computer cannot
    run it.
    """
    settings = config.model_copy(
        update={
            "start": "booted",
            "shards": 1,
            "disk": Size(max(config.disk, image.manifest.root_disk_size + _LARGER_BYTES)),
        }
    )
    qemu, accelerator = choose_emulator(settings, emit=emit, deadline=deadline)
    tool = _tool_for(image, deadline)
    with hold(image), open_run_directory(emit) as run:
        write_rehearsal(run.inbox, tool)
        request = LaunchRequest(settings, run, image, qemu, accelerator, tool)
        with launching(request, emit=emit, deadline=deadline) as launch:
            try:
                machine = launch.ready().machine
            except (HostError, RunTimeout):
                raise
            except VmrunnerError as error:
                return (problem_of("boots to SSH", error),)
            with phase(emit, "verify", "Looking at the guest"):
                verification = _Verification(image, machine, run, tool, settings.disk)
                return run_checks(verification.questions(), deadline=deadline, each=_QUESTION_SECONDS)


def _tool_for(image: Image, deadline: Deadline) -> NextestTool | None:
    return None if image.manifest.nextest else find_nextest(deadline=deadline)


@dataclass(frozen=True)
class _Verification:
    """One guest that is up, and what is asked of it."""

    image: Image
    machine: Machine
    run: RunDirectory
    tool: NextestTool | None
    disk: Size

    @property
    def guest(self) -> Guest:
        return self.machine.guest

    def questions(self) -> tuple[Question, ...]:
        """In the order of the contract; the test run is last, for it changes the guest."""
        asked: Sequence[tuple[str, Callable[[Deadline], Check]]] = (
            ("boots to SSH", lambda _: _ok("boots to SSH", "with this machine's own keys")),
            ("no passwords", self._logins),
            ("systemd is PID 1", self._init),
            ("architecture", self._architecture),
            ("serial console", self._console),
            ("root disk", self._root),
            ("root disk grown", self._grown),
            ("no share at boot", self._unmounted),
            ("test unit", self._unit),
            ("programs of the host", self._programs),
            ("clock", self._clock),
            ("dynamic loaders", self._loaders),
            ("cargo-nextest", self._nextest),
            ("test run", self._test_run),
            ("nothing left", self._cleared),
        )
        return tuple(Question(name, partial(_alone, ask)) for name, ask in asked)

    def _said(self, command: str, deadline: Deadline) -> str:
        done = self.guest.execute(["sh", "-c", command], deadline=deadline)
        return done.stdout.strip() or done.stderr.strip()

    def _logins(self, deadline: Deadline) -> Check:
        methods = login_methods(self.machine.ssh_port, deadline=deadline)
        return _compare("no passwords", "publickey", " ".join(methods))

    def _init(self, deadline: Deadline) -> Check:
        said = self._said("cat /proc/1/comm; systemctl --version | head -n 1", deadline).splitlines()
        wanted = f"systemd {self.image.manifest.systemd_version.split('.')[0]}"
        found = f"{said[0]} {said[-1].split()[1]}" if len(said) == 2 else " ".join(said)
        return _compare("systemd is PID 1", wanted, ".".join(found.split(".")[:1]))

    def _architecture(self, deadline: Deadline) -> Check:
        return _compare("architecture", self.image.manifest.architecture, self._said("uname -m", deadline))

    def _console(self, deadline: Deadline) -> Check:
        found = self._said("cat /sys/class/tty/console/active", deadline)
        named = "ttyS0" in found.split()
        return _judge("serial console", named, found, "the kernel needs console=ttyS0")

    def _root(self, deadline: Deadline) -> Check:
        devices = self._said("stat --format %d / && stat --format %r /dev/vda", deadline).split()
        same = len(devices) == 2 and devices[0] == devices[1]
        found = "/ is on /dev/vda" if same else self._said("cat /proc/mounts | grep ' / '", deadline)
        return _judge("root disk", same, found, "the root file system belongs on the first virtio disk")

    def _grown(self, deadline: Deadline) -> Check:
        said = self._said("stat --file-system --format '%S %b' /", deadline).split()
        size = int(said[0]) * int(said[1]) if len(said) == 2 and all(map(str.isdecimal, said)) else 0
        return _judge(
            "root disk grown",
            size >= self.disk * _ROOM_FOR_THE_FILE_SYSTEM,
            f"{Size(size).for_people()} of a disk of {self.disk.for_people()}",
            "grow the root file system at boot (systemd-growfs)",
        )

    def _unmounted(self, deadline: Deadline) -> Check:
        found = self._said("grep -c ' 9p ' /proc/mounts", deadline)
        return _judge(
            "no share at boot", found == "0", f"{found} 9p mounts", "mount the shares on demand only"
        )

    def _unit(self, deadline: Deadline) -> Check:
        names = ",".join((*_UNIT_PROPERTIES, "After", "Wants"))
        lines = self._said(f"systemctl show {UNIT} --property={names}", deadline).splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        wrong = [
            f"{name} is {found.get(name)!r}, not {value!r}"
            for name, value in _UNIT_PROPERTIES.items()
            if found.get(name) != value
        ]
        wrong += [
            f"{name} lacks network-online.target"
            for name in ("After", "Wants")
            if "network-online.target" not in found.get(name, "").split()
        ]
        return _judge("test unit", not wrong, "\n".join(wrong) or UNIT, f"see {UNIT} of the Debian image")

    def _programs(self, deadline: Deadline) -> Check:
        missing = self._said(
            "for path in {}; do [ -r $path ] || echo $path; done".format(" ".join(_PROGRAMS)), deadline
        )
        return _judge(
            "programs of the host", not missing, missing or " ".join(_PROGRAMS), "they are in images/guest"
        )

    def _clock(self, deadline: Deadline) -> Check:
        reading = read_clock(self.guest, deadline=deadline)
        return _judge(
            "clock",
            abs(reading.offset) < _CLOCK_MAY_BE_OFF_SECONDS,
            f"{reading.offset:+.2f} s off this host's",
            None,
        )

    def _loaders(self, deadline: Deadline) -> Check:
        names = self.image.manifest.interpreters
        missing = [name for name in names if self._said(f"[ -x {shlex.quote(name)} ] || echo no", deadline)]
        found = f"missing: {' '.join(missing)}" if missing else " ".join(names) or "none"
        return _judge(
            "dynamic loaders", not missing, found, "the manifest names loaders that the guest lacks"
        )

    def _nextest(self, deadline: Deadline) -> Check:
        wanted = self.image.manifest.nextest
        if wanted is None:
            assert self.tool is not None
            return _ok("cargo-nextest", f"the host's own, {self.tool.version}")
        environment = self._said(f"systemctl show {UNIT} --property=Environment --value", deadline)
        path = next((word[5:] for word in shlex.split(environment) if word.startswith("PATH=")), "")
        said = self._said(f"PATH={shlex.quote(path)}:$PATH cargo-nextest --version", deadline)
        return _compare("cargo-nextest", wanted, said.split()[1] if len(said.split()) > 1 else said)

    def _test_run(self, deadline: Deadline) -> Check:
        rehearse(self.guest, self.tool, out=self.run.out, deadline=deadline)
        log = self.run.out / inbox.NEXTEST_LOG
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if "Summary" in line]
        return _judge("test run", bool(said), said[-1] if said else "nextest printed no summary", None)

    def _cleared(self, deadline: Deadline) -> Check:
        clear_away(self.guest, deadline=deadline)
        found = self._said(
            "grep ' 9p ' /proc/mounts; ls -A /run/vmrunner/in /run/vmrunner/out 2>/dev/null", deadline
        )
        left = [line for line in found.splitlines() if not line.endswith(":") and line]
        return _judge(
            "nothing left", not left, "\n".join(left) or "shares unmounted, directories empty", None
        )


def _alone(ask: Callable[[Deadline], Check], deadline: Deadline) -> list[Check]:
    return [ask(deadline)]


def _ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def _judge(name: str, good: bool, found: str, advice: str | None) -> Check:
    return Check(name, "ok" if good else "problem", found, None if good else advice)


def _compare(name: str, wanted: str, found: str) -> Check:
    text = found if wanted == found else f"{found}, where the contract and the manifest say {wanted}"
    return _judge(name, wanted == found, text, None)

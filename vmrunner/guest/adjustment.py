"""Settings of a running guest that the host asks for over SSH, as the one shell script that makes them so.

Not a program of the image: any image can do it, older ones too. Each process costs 50 to 100 ms where the processor is
emulated, so the shell does itself what it can.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from vmrunner.errors import GuestError, GuestLost
from vmrunner.guest.ssh import ConnectionLost, Guest
from vmrunner.host.deadline import Deadline

_RESCAN = "echo 1 >/sys/bus/pci/rescan"
# CPU 0 has no such file where it cannot go offline.
_ONLINE = """for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  [ -e "$cpu/online" ] || continue
  want=0; [ "${{cpu##*/cpu}}" -ge {cpus} ] || want=1
  read -r is <"$cpu/online"
  [ "$is" = $want ] || echo $want >"$cpu/online" || exit 1
done"""
# SSH goes by a band of its own, so that a host can always get in.
_SHAPE = """tc qdisc del dev eth0 root 2>/dev/null
tc qdisc add dev eth0 root handle 1: prio bands 2 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 &&
tc qdisc add dev eth0 parent 1:2 handle 20: netem{words} &&
tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip protocol 6 0xff match ip sport 22 0xffff flowid 1:1"""
_UNSHAPE = "{ tc qdisc del dev eth0 root 2>/dev/null || :; }"


@dataclass(frozen=True)
class Adjustment:
    """What is to be so; nothing by default.

    `rescan`: look for devices that a restored machine has and its template had not. `cpus` are those in use. `rate` is
    in bits per second and `delay` in seconds, of what the guest sends; 0 is none, and both None leaves them alone.
    """

    rescan: bool = False
    cpus: int | None = None
    modules: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    rate: int | None = None
    delay: float | None = None

    def script(self) -> str:
        """The shell script for it, which ends with 1 where a part fails; empty where there is nothing to do."""
        parts = [_RESCAN] if self.rescan else []
        if self.cpus is not None:
            parts.append(_ONLINE.format(cpus=self.cpus))
        if self.modules:
            parts.append(shlex.join(["modprobe", "-a", "--", *self.modules]))
        parts += [
            f"printf '%s\\n' {shlex.quote(value)} >{shlex.quote(_file_of(name))}"
            for name, value in self.sysctls
        ]
        if self.rate is not None or self.delay is not None:
            parts.append(self._network())
        return "\n".join(f"{part} || exit 1" for part in parts)

    def _network(self) -> str:
        words = f" delay {round(self.delay * 1e6)}us" if self.delay else ""
        words += f" rate {self.rate}bit" if self.rate else ""
        return _SHAPE.format(words=words) if words else _UNSHAPE


def adjust(guest: Guest, adjustment: Adjustment, *, deadline: Deadline) -> None:
    """Make it so. Raises GuestError with what the guest said where it cannot, GuestLost where it does not answer."""
    script = adjustment.script()
    if not script:
        return
    try:
        done = guest.execute(["/bin/sh", "-c", script], deadline=deadline)
    except ConnectionLost as error:
        raise GuestLost(f"the guest was lost while it was adjusted: {error}") from error
    if done.code:
        raise GuestError("the guest did not take its settings", details=done.stderr.strip() or None)


def _file_of(sysctl: str) -> str:
    """sysctl(8): dots stand for slashes, unless there is a slash."""
    return "/proc/sys/" + (sysctl if "/" in sysctl else sysctl.replace(".", "/"))

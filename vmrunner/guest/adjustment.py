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
# A new file in its place: it may be a link into a store that nobody can write to.
_NAME_SERVER = (
    "printf 'nameserver %s\\noptions edns0 trust-ad\\n' {address} >/etc/resolv.conf.vmrunner && "
    "mv -f /etc/resolv.conf.vmrunner /etc/resolv.conf"
)
_PROTOCOLS = {"tcp": 6, "udp": 17}
# This host in the guest's network (qemu(1), -netdev user).
_HOST = "10.0.2.2"
# SSH goes by a band of its own, so that a host can always get in.
_SHAPE = """tc qdisc del dev eth0 root 2>/dev/null
tc qdisc add dev eth0 root handle 1: prio bands 2 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 &&
tc qdisc add dev eth0 parent 1:2 handle 20: netem{words} &&
tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip protocol 6 0xff match ip sport 22 0xffff flowid 1:1"""
# What comes in can be held back only where it goes out again: from a device of that kind (tc-mirred(8)).
_POLICE = """modprobe -a ifb act_mirred && ip link add ifb0 type ifb && ip link set ifb0 up &&
tc qdisc add dev eth0 handle ffff: ingress &&
tc filter add dev eth0 parent ffff: protocol ip prio 1 u32 match ip protocol 6 0xff match ip dport 22 0xffff action pass &&
tc filter add dev eth0 parent ffff: protocol ip prio 2 u32 match u32 0 0 action mirred egress redirect dev ifb0 &&
tc qdisc add dev ifb0 root handle 30: netem rate {rate}bit"""
_UNPOLICE = """[ ! -e /sys/class/net/ifb0 ] || {
tc qdisc del dev eth0 ingress 2>/dev/null
ip link del ifb0
} || exit 1"""
_UNSHAPE = "{ tc qdisc del dev eth0 root 2>/dev/null || :; }"


@dataclass(frozen=True)
class CutOff:
    """The host out of the guest's reach: its addresses, and the ports (protocol, number) that must go on answering it."""

    ports: tuple[tuple[str, int], ...]
    addresses: tuple[str, ...]

    def script(self) -> str:
        """Routing rules: the host reaches the guest from an address of its own network's, which replies must go to.

        Protocols by number, for a lean image has no /etc/protocols; one process for all rules.
        """
        rules = [
            f"rule add pref 100 ipproto {_PROTOCOLS[protocol]} sport {port} lookup main"
            for protocol, port in self.ports
        ]
        rules += [f"rule add pref 110 to {address}/32 prohibit" for address in (_HOST, *self.addresses)]
        return shlex.join(["printf", "%s\\n", *rules]) + " | ip -batch -"


@dataclass(frozen=True)
class Adjustment:
    """What is to be so; nothing by default.

    `rescan`: look for devices that a restored machine has and its template had not. `cpus` are those in use.
    `name_server` is the one to ask. `rate` is in bits per second, of what the guest sends and of what it receives, and
    `delay` in seconds, of what it sends; 0 is none, and both None leaves them alone.
    """

    rescan: bool = False
    cpus: int | None = None
    modules: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    name_server: str | None = None
    cut_off: CutOff | None = None
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
        if self.name_server:
            parts.append(_NAME_SERVER.format(address=shlex.quote(self.name_server)))
        if self.cut_off:
            parts.append(self.cut_off.script())
        if self.rate is not None or self.delay is not None:
            parts.append(self._network())
        return "\n".join(f"{part} || exit 1" for part in parts)

    def _network(self) -> str:
        words = f" delay {round(self.delay * 1e6)}us" if self.delay else ""
        words += f" rate {self.rate}bit" if self.rate else ""
        shape = _SHAPE.format(words=words) if words else _UNSHAPE
        return f"{_UNPOLICE}\n{shape}" + (f" &&\n{_POLICE.format(rate=self.rate)}" if self.rate else "")


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

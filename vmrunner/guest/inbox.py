"""What the guest finds in its `in` share, and where it puts its results: both ends of the guest contract in one file.

`cargo-nextest.service` starts `/bin/sh /run/vmrunner/in/run`. That script and everything it reads is made here, on the
host, so that an image knows nothing about a run and one image serves every project and every version of vmrunner.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vmrunner.guest.preparation import PREPARE

IN = PurePosixPath("/run/vmrunner/in")
OUT = PurePosixPath("/run/vmrunner/out")
STATE = PurePosixPath("/var/lib/cargo-nextest")
"""The unit's StateDirectory; on the root disk, so that what tests write costs disk and not memory."""

RUN_SCRIPT = "run"
MOUNTS = "mounts"
HOSTS = "hosts"
RESOLV_CONF = "resolv.conf"
HOST_STORE_MOUNT = "/run/vmrunner/store"
"""Where `prepare` mounts the host's Nix store; a run's own mounts lay it over /nix/store."""
HOST_STORE = "host-store"
"""An empty file that is there where the guest is to mount the host's Nix store."""
SOURCES = "sources"
TARGET = "target"
BINARIES = "bin"
NEXTEST_FILES = "nextest"

CARRIED_NEXTEST = IN / BINARIES / "cargo-nextest"
"""The host's nextest, where the image has none."""

MERGED_HOSTS = "/run/vmrunner/hosts"
"""/etc/hosts during a run: the project's lines, then the guest's own; `prepare` makes it."""

MOUNTED_MARK = "/run/vmrunner/mounted"
STARTED_MARK = "started"
STDOUT_LOG = "stdout.log"
NEXTEST_LOG = "nextest.log"
STORE = "store"

_NAMESERVERS = {
    "none": "127.0.0.1",
    # Nothing listens there, so a look-up fails at once instead of after two time-outs of five seconds.
    "restricted": "127.0.0.1",
    # QEMU's DNS forwarder (qemu(1), -netdev user).
    "user": "10.0.2.3",
}
# Paths that a guest needs as they are: nothing may be laid over them or over a directory that holds them.
_KEPT_FREE = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/cargo-nextest",
)
_NOT_ITSELF = ("/", "/home", "/opt", "/root", "/srv", "/tmp", "/var", "/mnt", "/media")  # noqa: S108 -- names in the guest
_OVERLAYS = STATE / "overlays"
OVERLAY_DIRECTORIES = tuple(
    _OVERLAYS / name / kind for name in ("workspace", "target") for kind in ("upper", "work")
)
"""What the overlays of a run write to."""

REMAPPED_WORKSPACE = STATE / "workspace"

# In mounts of its own, so that only the programs of the run see it, and it is gone with them. Over a store of the guest's
# it hides what is mounted in that: of NixOS, files of /etc.
_LAY_STORE = (
    "if [ -d /nix/store ]; then",
    f"  mount -t overlay -o ro,lowerdir=/nix/store:{HOST_STORE_MOUNT} store /nix/store &&",
    f"  mount --bind {MERGED_HOSTS} /etc/hosts && mount --bind {IN / RESOLV_CONF} /etc/resolv.conf",
    f"else mkdir -p /nix/store && mount --bind {HOST_STORE_MOUNT} /nix/store",
    "fi || exit 206",
)


# What /sys shows of network cards is what there was where it was mounted (network_namespaces(7)).
_LAY_NETWORK = (
    "{ ip link set lo up && mount -t sysfs sysfs /sys && mount -t cgroup2 cgroup2 /sys/fs/cgroup; } || exit 207",
)


@dataclass(frozen=True)
class Overlay:
    """A directory of the `in` share laid, writable, over `mountpoint`; what is written goes to the guest's disk."""

    name: str
    lower: PurePosixPath
    mountpoint: PurePosixPath


@dataclass(frozen=True)
class GuestLayout:
    """Where workspace and target directory appear in the guest, and whether that is where they were compiled.

    `build` is cargo's build directory where the project keeps it apart from the target directory; the archive holds
    both as one, so it is the same directory seen at a second place.
    """

    workspace: PurePosixPath
    target: PurePosixPath
    remapped: bool
    build: PurePosixPath | None = None

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """What to lay where, in the order in which it must be mounted."""
        return (
            Overlay("workspace", IN / SOURCES, self.workspace),
            Overlay("target", IN / TARGET, self.target),
        )


@dataclass(frozen=True)
class Job:
    """One run as the guest sees it.

    `installed_nextest` is where a restored guest may have a copy of the nextest that `command` starts: to read 35 MB
    from the share again would take half a second (measured).
    `store_bind` is a directory of the workspace that JUnit reports go to instead of the one that vmrunner asks for,
    because the repository's own nextest configuration says so. `host_store`: its programs see the host's Nix store.
    In the network `none` the unit has a network namespace of its own, with nothing in it but loopback. `dns` is the
    address of another name server than QEMU's.
    """

    layout: GuestLayout
    command: tuple[str, ...]
    network: str
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    store_bind: PurePosixPath | None = None
    installed_nextest: PurePosixPath | None = None
    hostname: str = ""
    host_store: bool = False
    dns: str | None = None


def layout_for(workspace: Path, target: Path, build: Path | None = None) -> GuestLayout:
    """The archive's own paths where the guest can have them, else a workspace of our own to which nextest remaps."""
    apart = build if build != target else None
    if all(_can_be_had(path) for path in (workspace, target, apart) if path):
        return GuestLayout(
            PurePosixPath(workspace),
            PurePosixPath(target),
            remapped=False,
            build=PurePosixPath(apart) if apart else None,
        )
    return GuestLayout(REMAPPED_WORKSPACE, REMAPPED_WORKSPACE / "target", remapped=True)


def render_job(job: Job) -> dict[str, str]:
    """The text files of the `in` share, by name."""
    return {
        RUN_SCRIPT: render_script(job),
        MOUNTS: render_mounts(job),
        HOSTS: render_hosts(job.hosts, job.hostname),
        RESOLV_CONF: f"nameserver {job.dns or _NAMESERVERS[job.network]}\noptions edns0 trust-ad\n",
        **({HOST_STORE: ""} if job.host_store else {}),
    }


def render_hosts(hosts: Mapping[str, Sequence[str]], hostname: str = "") -> str:
    """What goes before the guest's own lines of /etc/hosts for the time of the run: there the first line with a name counts."""
    own = {"127.0.1.1": [hostname]} if hostname else {}
    return "".join(f"{address} {' '.join(names)}\n" for address, names in (*own.items(), *hosts.items()))


def render_mounts(job: Job) -> str:
    """An fstab(5), for one program that mounts it all: every process more costs 50 to 100 ms under TCG."""
    lines = [
        f"{MERGED_HOSTS} /etc/hosts none bind 0 0",
        f"{IN / RESOLV_CONF} /etc/resolv.conf none bind 0 0",
    ]
    for overlay in job.layout.overlays:
        upper, work = _upper(overlay), _work(overlay)
        lines.append(
            f"{overlay.name} {_fstab_path(overlay.mountpoint)} overlay"
            f" X-mount.mkdir,lowerdir={overlay.lower},upperdir={upper},workdir={work} 0 0"
        )
    if job.layout.build:
        lines.append(
            f"{_fstab_path(job.layout.target)} {_fstab_path(job.layout.build)} none X-mount.mkdir,bind 0 0"
        )
    if job.store_bind:
        lines.append(f"{OUT / STORE} {_fstab_path(job.store_bind)} none X-mount.mkdir,bind 0 0")
    return "".join(f"{line}\n" for line in lines)


def render_script(job: Job) -> str:
    """The script that the unit runs. It ends by becoming nextest, so that the unit's exit status is nextest's.

    A failure before that ends it with a code that nextest does not have, and without the mark file.
    """
    there = " && ".join(f"[ -d {path} ]" for path in OVERLAY_DIRECTORIES)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    return "\n".join(
        [
            "# Made by vmrunner for one run.",
            f"exec >>{OUT / STDOUT_LOG} 2>>{OUT / NEXTEST_LOG} </dev/null || exit 200",
            # A template's guest has them already.
            f"{there} || mkdir -p {' '.join(map(str, OVERLAY_DIRECTORIES))} || exit 201",
            # The host has had them mounted before it let the unit go; who starts it by hand has not.
            f"[ -e {MOUNTED_MARK} ] || {PREPARE} shares mounts || exit 202",
            *_unshare(job),
            *(_LAY_STORE if job.host_store else ()),
            *(_LAY_NETWORK if job.network == "none" else ()),
            f"cd {shlex.quote(str(job.layout.workspace))} || exit 203",
            # nextest starts each test through a copy of itself, so that Ctrl-Z at a terminal is safe. There is none here,
            # and under TCG that doubles the cost of each test (measured: 0.62 s for mydns, 0.30 s without).
            "export VMRUNNER=1 CARGO_TERM_PROGRESS_WHEN=never NEXTEST_DOUBLE_SPAWN=0",
            # Else nextest says in each run that it does so.
            "export NEXTEST_LOG=info,cargo_nextest::dispatch=warn",
            *exports,
            # Never twice: the outcome of the first time is the one that counts.
            f"[ ! -e {OUT / STARTED_MARK} ] || exit 205",
            f": >{OUT / STARTED_MARK} || exit 204",
            *_start(job),
            "",
        ]
    )


def _unshare(job: Job) -> list[str]:
    """Start the script once more where it is to have namespaces of its own."""
    words = [
        *(("--net",) if job.network == "none" else ()),
        *(("--mount", "--propagation", "slave") if job.host_store or job.network == "none" else ()),
    ]
    if not words:
        return []
    return [f'[ "$1" = inside ] || exec unshare {" ".join(words)} /bin/sh {IN / RUN_SCRIPT} inside']


def _start(job: Job) -> list[str]:
    if job.installed_nextest is None:
        return [f"exec {shlex.join(job.command)}"]
    nextest, *arguments = job.command
    return [
        f"nextest={job.installed_nextest}",
        f'[ -x "$nextest" ] || nextest={nextest}',
        f'exec "$nextest" {shlex.join(arguments)}',
    ]


def installed_nextest(identity: str) -> PurePosixPath:
    """Where a template's guest keeps the nextest of that identity."""
    return PurePosixPath("/var/lib/vmrunner/nextest") / identity / "cargo-nextest"


def _can_be_had(path: Path) -> bool:
    text = str(path)
    if not path.is_absolute() or text in _NOT_ITSELF or ".." in path.parts:
        return False
    if any(char in text for char in "\n\r\0"):
        return False
    return not any(
        path == Path(kept) or path.is_relative_to(kept) or Path(kept).is_relative_to(path)
        for kept in _KEPT_FREE
    )


def _upper(overlay: Overlay) -> PurePosixPath:
    return _OVERLAYS / overlay.name / "upper"


def _work(overlay: Overlay) -> PurePosixPath:
    return _OVERLAYS / overlay.name / "work"


def _fstab_path(path: PurePosixPath) -> str:
    """Escape what separates fields in fstab(5)."""
    return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")

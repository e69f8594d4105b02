"""Run mmdebstrap: its arguments, its progress for a person, and its failures by name."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vmrunner.errors import CommandFailed, ImageBuildFailed
from vmrunner.events import Phase
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command
from vmrunner.image.prerequisites import ROOM_HINT, BuildMode
from vmrunner.image.recipe import Recipe

# The kernel's package then makes no initrd of its own, which would take ten seconds and be thrown away
# (/etc/kernel/postinst.d/initramfs-tools).
_ENVIRONMENT: Final = {"INITRD": "No", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


_CLEAN_UP_SECONDS: Final = 30.0
_NO_SPACE: Final = "No space left on device"
_NO_PACKAGE: Final = re.compile(
    r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate"
)
_UNREACHABLE: Final = re.compile(
    r"(Could not resolve|Could not connect to|Unable to connect to|Cannot initiate the connection to|"
    r"Temporary failure resolving|Connection failed|Failed to fetch) '?([^\s']+)"
)
_FULL: Final = "the disk of {directory} filled up while the image was built"


def mmdebstrap_argv(recipe: Recipe, *, packages: tuple[str, ...], mode: BuildMode, target: Path) -> list[str]:
    """The command line that makes the system and packs it into `target`."""
    wanted = ",".join(dict.fromkeys((*recipe.packages, *sorted(set(packages)))))
    # As root it mounts /proc, /sys and devices; in a mount namespace of its own these are gone when it is,
    # however it ended, and no removal of what it left can reach through them.
    prefix = ["unshare", "--mount", "--propagation", "private", "--"] if mode == "root" else []
    return [
        *prefix,
        "mmdebstrap",
        "--verbose",
        f"--mode={mode}",
        "--format=tar",
        "--variant=minbase",
        # The kernel makes the devices (devtmpfs), and only root could unpack them.
        "--skip=output/dev",
        f"--keyring={recipe.keyring}",
        f"--include={wanted}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "2"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f'--customize-hook=chroot "$1" sh -euc {shlex.quote(recipe.finish)}',
        recipe.suite,
        str(target),
        *recipe.sources,
    ]


def make_system(
    recipe: Recipe,
    *,
    packages: tuple[str, ...],
    mode: BuildMode,
    target: Path,
    deadline: Deadline,
    current: Phase,
) -> None:
    """Install a Debian system and pack it into the tar archive `target`. Raises ImageBuildFailed."""
    argv = mmdebstrap_argv(recipe, packages=packages, mode=mode, target=target)
    # Root installs beside the target, which is removed whatever happens. An ordinary user's other ids cannot
    # get into that private directory: they need the common temporary directory, and mmdebstrap the time to
    # clean up there.
    environment = _ENVIRONMENT | ({"TMPDIR": str(target.parent)} if mode == "root" else {})
    progress = _Progress(current)
    try:
        run_command(
            argv,
            deadline=deadline,
            env=environment,
            on_line=progress,
            stop_grace=_CLEAN_UP_SECONDS,
        )
    except CommandFailed as error:
        raise build_failure(error, packages, progress.telling) from error


@dataclass
class _Progress:
    """mmdebstrap runs apt twice (essential packages, then the rest); each time the count starts anew."""

    phase: Phase
    done: int = 0
    total: int | None = None
    telling: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        """Take one line of mmdebstrap's output.

        One that tells why it will fail is kept, wherever it stands.
        """
        if _NO_PACKAGE.search(line) or _UNREACHABLE.search(line) or _NO_SPACE in line:
            self.telling.append(line)
        if match := re.match(r"\d+ upgraded, (\d+) newly installed", line):
            # Each package is downloaded, unpacked and set up.
            self.done, self.total = 0, 3 * int(match[1])
        elif match := re.match(r"Get:\d+ \S+ \S+ \S+ (\S+) \S+ \S+ (\[[^]]*])$", line):
            self._step(f"downloading {match[1]} {match[2]}")
        elif match := re.match(r"(Unpacking|Setting up) (\S+)", line):
            self._step(f"{match[1].lower()} {match[2].partition(':')[0]}")
        elif line.startswith("I: "):
            self.phase.progress(self.done, self.total, "steps", line[3:].rstrip(". "))

    def _step(self, text: str) -> None:
        self.done += 1
        if self.total is not None:
            self.done = min(self.done, self.total)
        self.phase.progress(self.done, self.total, "steps", text)


def build_failure(
    error: CommandFailed, packages: tuple[str, ...], telling: Sequence[str] = ()
) -> ImageBuildFailed:
    """What mmdebstrap's output means to a person.

    `telling` are lines that its last ones may no longer hold.
    """
    text = "\n".join((*telling, error.output))
    if _NO_SPACE in text:
        return ImageBuildFailed(
            "the disk filled up while the system was installed", hint=ROOM_HINT, details=error.details
        )
    if match := _NO_PACKAGE.search(text):
        name = match[1] or match[2]
        whose = "`packages:` of vmrunner.yaml" if name in packages else "the recipe"
        return ImageBuildFailed(
            f"Debian has no package {name}, which {whose} asks for",
            hint="`apt-cache search WORD` or packages.debian.org finds the right name",
            details=error.details,
        )
    if match := _UNREACHABLE.search(text):
        return ImageBuildFailed(
            f"the Debian mirror cannot be reached: {match[1].lower()} {match[2]}",
            hint="check the network, and apt's proxy settings on this computer",
            details=error.details,
        )
    return ImageBuildFailed(
        "mmdebstrap failed to make the Debian system",
        hint="its last lines are below; `-v` shows the whole command",
        details=error.details,
    )


@contextmanager
def full_disk_named(directory: Path) -> Iterator[None]:
    """Turn a full disk, and a tool that failed, into ImageBuildFailed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ImageBuildFailed(_FULL.format(directory=directory.parent), hint=ROOM_HINT) from error
    except CommandFailed as error:
        if _NO_SPACE in error.output:
            raise ImageBuildFailed(
                _FULL.format(directory=directory.parent), hint=ROOM_HINT, details=error.details
            ) from error
        raise ImageBuildFailed(
            f"a step of building the image failed: {error.message}", details=error.details
        ) from error

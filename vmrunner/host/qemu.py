"""The QEMU programs of this computer: where they are and which version they have."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from vmrunner.errors import HostError, RunTimeout
from vmrunner.host.deadline import Deadline
from vmrunner.host.program_version import version_output

MINIMUM_VERSION = (7, 2)
"""The oldest QEMU vmrunner is tested with, that of Debian 12; socket netdevs without root came with it."""

EMULATES_SEVERAL_CPUS_SINCE = (8, 1)
"""The first QEMU whose emulation of several CPUs can be relied on.

Before, a CPU may go on with an instruction that another has just changed. Linux changes its own code while it boots; then
it panics over a breakpoint that is no longer there (`Oops: int3`), or QEMU itself dies. QEMU's commit deba78709a ("accel/tcg:
Always lock pages before translation") mends it; Launchpad 2051965 has the reports. With QEMU 7.2.22 and two CPUs 3 of 144 boots
ended so, 1 by SIGSEGV, with 10.0.13 none of 74. One thread for all CPUs avoids it (`thread=single`), but takes half as long again for a template
(24 s instead of 16, measured), so a machine that broke is started once more instead."""

SEVERAL_CPUS_DEFECT = (
    "this QEMU has a defect in its emulation of several CPUs that does this now and then;"
    " QEMU 8.1 and newer do not have it, nor does a machine with `--cpus 1`"
)
"""What is said where such a QEMU may have broken a guest."""

VERSION_SECONDS = 10.0
"""How long `--version` may take: about 0.01 s when QEMU is in the page cache, 0.1 s when it is not."""

_VERSION = re.compile(r"version (?P<text>\d+(?:\.\d+)+)")
_DEBIAN_PACKAGES = {
    "x86_64": "qemu-system-x86",
    "i386": "qemu-system-x86",
    "aarch64": "qemu-system-arm",
    "riscv64": "qemu-system-misc",
}


@dataclass(frozen=True)
class Qemu:
    """A QEMU program. `version` is its number alone, such as `7.2.22`, without what the distribution adds."""

    path: Path
    version: str

    @property
    def version_tuple(self) -> tuple[int, ...]:
        """The version for comparisons: `(7, 2, 22)`."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def emulates_several_cpus(self) -> bool:
        """Whether it emulates several CPUs in threads of their own without a defect (EMULATES_SEVERAL_CPUS_SINCE)."""
        return self.version_tuple >= EMULATES_SEVERAL_CPUS_SINCE

    def machine_type_named(self, name: str) -> str:
        """A machine type with its version; `auto` and `q35` are the newest q35, `pc` is the newest i440fx.

        Every QEMU names them so, whatever aliases a distribution adds.
        """
        family = {"auto": "q35", "q35": "q35", "pc": "i440fx"}.get(name)
        major, minor = self.version_tuple[:2]
        return f"pc-{family}-{major}.{minor}" if family else name


def find_qemu(architecture: str = "x86_64") -> Qemu:
    """The `qemu-system-ARCHITECTURE` on PATH.

    Raises HostError where there is none, where it does not start, or where it is older than MINIMUM_VERSION.
    """
    package = _DEBIAN_PACKAGES.get(architecture, "qemu-system")
    return _find(f"qemu-system-{architecture}", hint=f"sudo apt install {package}")


def find_qemu_img() -> Qemu:
    """The `qemu-img` on PATH; raises HostError as `find_qemu` does."""
    return _find("qemu-img", hint="sudo apt install qemu-utils")


def _find(program: str, *, hint: str) -> Qemu:
    found = shutil.which(program)
    if found is None:
        raise HostError(f"`{program}` is not on PATH", hint=hint)
    qemu = Qemu(Path(found), _version_of(found, hint=hint))
    if qemu.version_tuple < MINIMUM_VERSION:
        oldest = ".".join(map(str, MINIMUM_VERSION))
        raise HostError(
            f"`{found}` is version {qemu.version}, and vmrunner needs {oldest} or newer",
            hint="install a newer QEMU (Debian 12, Ubuntu 24.04 and later have one) and put it first on PATH",
        )
    return qemu


def _version_of(program: str, *, hint: str) -> str:
    try:
        result = version_output(Path(program), ["--version"], deadline=Deadline.after(VERSION_SECONDS))
    except RunTimeout as error:
        raise HostError(
            f"`{program} --version` did not answer within {VERSION_SECONDS:g} s", hint=hint
        ) from error
    if result.code:
        raise HostError(
            f"`{program} --version` failed with exit code {result.code}",
            hint=hint,
            details=(result.stdout + result.stderr).strip() or None,
        )
    match = _VERSION.search(result.stdout)
    if match is None:
        raise HostError(f"`{program} --version` names no version", hint=hint, details=result.stdout.strip())
    return match["text"]

"""The same suite through virtme-ng: the image's kernel, this host's file system as its root, the same accelerator.

virtme-ng boots a kernel on a copy-on-write view of the running system, with an init of its own instead of systemd. What
it needs besides comes out of the image, so that nothing is installed on the host: the uncompressed kernel, its modules, a
static busybox for the initramfs, and the modprobe that finds the modules.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import NotMeasured, timed
from benchmarks.image_files import ImageFiles, copy_out, forget_others
from benchmarks.suite_runs import CACHE, CRATE, PYTHON, MachineShape, SuiteRun

VERSION = "1.42"
"""Of virtme-ng on PyPI."""

HOSTS = {"52.0.56.137": "52-0-56-137.nip.io"}
"""What the crate's vmrunner.yaml puts into the guest's /etc/hosts."""

_KERNEL_PREFIX = "virtme-ng-kernel-"
_RUN_LIMIT_SECONDS = 300.0
# Without udev on the host virtme-ng's guest finds none of its ports: it neither passes an exit code on (it says 255,
# "unexpected exit") nor any output. Both are left in a directory that the guest may write to.
_ANY_CODE = frozenset(range(256))
_SUMMARY = re.compile(r"^ +Summary \[ *([\d.]+)s\] +\d+ tests? run: \d+ passed", re.MULTILINE)


@dataclass(frozen=True)
class VirtmeNg:
    """An installed virtme-ng and the kernel it boots; `tools` comes first on its PATH, then its own programs."""

    program: Path
    kernel: Path
    busybox: Path
    tools: Path


def set_up(image: ImageFiles, *, cache: Path = CACHE) -> VirtmeNg:
    """Install virtme-ng from PyPI into a virtual environment of its own and take its kernel out of `image`.

    All of it is in `cache`, and used again where it is there. Raises NotMeasured where one of it cannot be had.
    """
    program = cache / f"virtme-ng-{VERSION}" / "bin" / "vng"
    if not program.exists():
        _install(program.parents[1])
    # virtme-ng looks for lib/modules in the directories above the kernel.
    root = cache / f"{_KERNEL_PREFIX}{image.digest[:12]}"
    forget_others(root, prefix=_KERNEL_PREFIX)
    kernel = root / "boot" / f"vmlinux-{image.kernel_release}"
    if not root.exists():
        making = root.with_name(f".making-{root.name}")
        shutil.rmtree(making, ignore_errors=True)
        _lay_out_kernel(image, making)
        _write_modprobe(making, final=root)
        making.rename(root)
    return VirtmeNg(program, kernel, root / "guest" / "busybox", root / "tools")


def run_suite(virtme: VirtmeNg, *, nextest: Path, shape: MachineShape) -> SuiteRun:
    """Build the archive and run it in virtme-ng's guest: `cargo nextest run --archive-file`.

    Raises NotMeasured, with what the guest said, where the tests did not pass.
    """
    with tempfile.TemporaryDirectory(dir=virtme.program.parents[2]) as made:
        job = Path(made)
        archive = job / "archive.tar.zst"
        built = timed([nextest, "nextest", "archive", "--archive-file", archive], cwd=CRATE)
        (job / "run").write_text(guest_script(job, nextest=nextest))
        (job / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for a, n in HOSTS.items()))
        ran = timed(
            virtme_command(virtme, job=job, shape=shape),
            env={"PATH": f"{virtme.tools}:{virtme.program.parent}:{os.environ.get('PATH', os.defpath)}"},
            limit=_RUN_LIMIT_SECONDS,
            codes=_ANY_CODE,
        )
        return SuiteRun(
            built.seconds + ran.seconds,
            _nextest_seconds(job, ran.stdout + ran.stderr),
            {"archive": built.seconds, "virtme-ng": ran.seconds},
        )


def virtme_command(virtme: VirtmeNg, *, job: Path, shape: MachineShape) -> list[str]:
    """The command line of virtme-ng.

    By 9p, for without a virtiofsd on the host it waits 5 s for one before it takes 9p anyway.
    """
    options = ["--disable-kvm"] if shape.accelerator == "tcg" else []
    return [
        str(virtme.program),
        "--run", str(virtme.kernel),
        *options,
        "--force-9p",
        "--cpus", str(shape.cpus),
        "--memory", f"{shape.memory >> 20}M",
        "--busybox", str(virtme.busybox),
        "--rwdir", str(job),
        "--exec", f"sh {shlex.quote(str(job / 'run'))}",
    ]  # fmt: skip


def guest_script(job: Path, *, nextest: Path) -> str:
    """What runs in the guest: the tests with the names they need, and what nextest said and ended with into `job`."""
    directory = shlex.quote(str(job))
    command = [
        str(nextest), "nextest", "run", "--color", "never", "--archive-file", str(job / "archive.tar.zst"),
        "--workspace-remap", str(CRATE),
    ]  # fmt: skip
    return (
        f"mount --bind {directory}/hosts /etc/hosts\n"
        f"cd {shlex.quote(str(CRATE))}\n"
        f"NEXTEST_SHOW_PROGRESS=none {shlex.join(command)} >{directory}/log 2>&1\n"
        f"echo $? >{directory}/code\n"
    )


def find_nextest() -> Path:
    """The cargo-nextest that `vmrunner test` takes, or NotMeasured: the first of PATH, else the one in .venv."""
    found = shutil.which("cargo-nextest")
    path = Path(found) if found else PYTHON.with_name("cargo-nextest")
    if not path.exists():
        raise NotMeasured("`cargo-nextest` is not installed")
    return path.resolve()


def _install(directory: Path) -> None:
    print(f"installing virtme-ng {VERSION} from PyPI into {directory}", file=sys.stderr)
    timed([PYTHON, "-m", "venv", "--clear", directory])
    python = directory / "bin" / "python"
    try:
        timed(
            [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                f"virtme-ng=={VERSION}",
            ]
        )
    except NotMeasured:
        shutil.rmtree(directory)
        raise


def _lay_out_kernel(image: ImageFiles, root: Path) -> None:
    copy_out(
        image,
        files=["/usr/bin/busybox", "/usr/bin/kmod"],
        trees=["/usr/lib/x86_64-linux-gnu"],
        destination=root / "guest",
    )
    modules = root / "lib" / "modules"
    copy_out(image, files=[], trees=[f"/usr/lib/modules/{image.kernel_release}"], destination=modules)
    (root / "boot").mkdir()
    shutil.copyfile(image.kernel, root / "boot" / f"vmlinux-{image.kernel_release}")


def _write_modprobe(root: Path, *, final: Path) -> None:
    """The image's modprobe, with the image's own loader and libraries: this host's may be older, or it has none.

    It is written below `root`, to be used when that has become `final`.
    """
    libraries = final / "guest" / "x86_64-linux-gnu"
    command = [
        str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), "--argv0", "modprobe",
        str(final / "guest" / "kmod"),
    ]  # fmt: skip
    modprobe = root / "tools" / "modprobe"
    modprobe.parent.mkdir()
    modprobe.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    modprobe.chmod(0o755)


def _nextest_seconds(job: Path, said: str) -> float:
    try:
        log, code = (job / "log").read_text(errors="replace"), (job / "code").read_text().strip()
    except FileNotFoundError as error:
        raise NotMeasured(f"virtme-ng's guest did not run the tests\n{said}") from error
    summary = _SUMMARY.search(log)
    if code != "0" or summary is None:
        raise NotMeasured(f"the tests did not pass in virtme-ng's guest, nextest ended with {code}\n{log}")
    return float(summary[1])

"""The error tree and the exit-code table; every error a user can meet is defined here.

::

    VmrunnerError                       exit code
    ├── UsageError                          2   wrong flag or argument
    ├── ConfigError                         2   vmrunner.yaml, VMRUNNER_* or a flag holds a bad key or value
    ├── HostError                          20   a tool is missing or unusable
    │   ├── CommandFailed                  20   a host command ended with an error nobody gave a better name
    │   ├── GuestHalted                    20   QEMU stopped the guest, for this host's disk failed it
    │   ├── VmBusy                         20   another command or a test run has the long-lived VM
    │   └── VmDamaged                      20   what a long-lived VM keeps on this host cannot be read
    ├── ImageError                         21
    │   ├── ImageNotFound                  21   no such image, directory or recipe
    │   ├── ImageBuildFailed               21   the builder failed; its last lines are in `details`
    │   └── ImageDamaged                   21   files do not match the manifest, or it breaks the guest contract
    ├── BootError                          22
    │   ├── QemuExited                     22   QEMU died before the guest was ready
    │   ├── BootCrashed                    22   the guest's kernel or QEMU broke down before the guest was ready
    │   └── BootTimeout                    22   the guest did not come up in time
    ├── GuestError                         23
    │   ├── GuestLost                      23   the guest stopped answering, shut down or rebooted
    │   ├── GuestPanicked                  23   the guest's kernel panicked
    │   ├── GuestOutOfMemory               23   the unit was killed for memory
    │   ├── VmNotRunning                   23   the long-lived VM is stopped, or died
    │   └── UnitFailed                     23   the unit ended in a way that says nothing about the tests
    ├── ArchiveError                       24   not an archive, wrong architecture, needs what the guest lacks
    ├── NextestFailed                       *   `cargo nextest archive` failed: nextest's own code passes through
    └── RunTimeout                         25   the run's time is up; says in which phase
    Interrupted (a KeyboardInterrupt)     130   SIGINT; 143 for SIGTERM

Exit code 1 is kept for bugs in vmrunner; 0, 4, 100, 104, ... are nextest's own (see `vmrunner.nextest.exit_codes`).
"""

from __future__ import annotations

from typing import ClassVar

EXIT_BUG = 1


class VmrunnerError(Exception):
    """Something that is not a bug in vmrunner went wrong.

    `message` is one sentence without a full stop: what happened to what. `hint` is what to do about it.
    `details` are the facts to look at: command line, exit code, last lines of a log.
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, message: str, *, hint: str | None = None, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


def in_full(error: Exception) -> str:
    """Its sentence, and below that its details, indented; for where an error is the reason for something else."""
    details = error.details if isinstance(error, VmrunnerError) else None
    return "\n  ".join([str(error), *(details or "").splitlines()])


class UsageError(VmrunnerError):
    """A flag or argument is wrong."""

    exit_code = 2


class ConfigError(VmrunnerError):
    """A setting is unknown, mistyped or impossible; the message names where it came from."""

    exit_code = 2


class HostError(VmrunnerError):
    """This computer lacks something, or something on it does not work."""

    exit_code = 20


class CommandFailed(HostError):
    """A child process ended with a code other than 0.

    `code` is its exit status (negative: killed by that signal), `output` the end of what it printed.
    """

    def __init__(self, argv: list[str], code: int, output: str, *, hint: str | None = None) -> None:
        details = f"command: {' '.join(argv)}\nexit code: {code}\n{output}".rstrip()
        super().__init__(f"`{argv[0]}` failed with exit code {code}", hint=hint, details=details)
        self.argv = argv
        self.code = code
        self.output = output


class GuestHalted(HostError):
    """QEMU has stopped the guest: this computer's disk is full, or broken."""


class VmBusy(HostError):
    """Another command, or a test run, has the long-lived VM."""


class VmDamaged(HostError):
    """What a long-lived VM keeps on this computer cannot be read or used."""


class ImageError(VmrunnerError):
    """The image cannot be used."""

    exit_code = 21


class ImageNotFound(ImageError):
    """There is no such image, directory or recipe."""


class ImageBuildFailed(ImageError):
    """The image could not be built."""


class ImageDamaged(ImageError):
    """The image's files do not match its manifest, or the manifest is not one."""


class BootError(VmrunnerError):
    """The machine did not come up."""

    exit_code = 22


class QemuExited(BootError):
    """QEMU ended before the guest was ready."""


class BootCrashed(BootError):
    """The guest's kernel or QEMU broke down before the guest was ready."""


class BootTimeout(BootError):
    """The guest did not come up in its time."""


class GuestError(VmrunnerError):
    """The guest broke while it was in use; this says nothing about the tests."""

    exit_code = 23


class GuestLost(GuestError):
    """The guest stopped answering, shut down or rebooted."""


class GuestPanicked(GuestError):
    """The guest's kernel panicked."""


class GuestOutOfMemory(GuestError):
    """The guest's kernel killed the unit for memory."""


class VmNotRunning(GuestError):
    """The long-lived VM is stopped, or died, and something in it is wanted."""


class UnitFailed(GuestError):
    """The unit ended in a way that says nothing about the tests."""


class ArchiveError(VmrunnerError):
    """The archive cannot be run in this guest."""

    exit_code = 24


class NextestFailed(VmrunnerError):
    """A nextest command on the host (`cargo nextest archive`) failed; its exit code is passed on."""

    def __init__(
        self, message: str, *, code: int, hint: str | None = None, details: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.code = code


class RunTimeout(VmrunnerError):
    """The time given to the run is up."""

    exit_code = 25


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; raised once, so that `with` blocks clean up.

    `exit_code` is 128 plus the signal's number, as shells have it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number


def exit_code_of(error: VmrunnerError) -> int:
    """The process exit code for `error`."""
    return error.code if isinstance(error, NextestFailed) else error.exit_code

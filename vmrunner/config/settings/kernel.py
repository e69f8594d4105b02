"""The kernel: which one, and what it is told."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from vmrunner.config import checks
from vmrunner.config.option import Option, pairs_like
from vmrunner.config.settings.types import NO_ENTRIES, FilePath, ReadOnly, Settings

KernelArgument = Annotated[str, AfterValidator(checks.kernel_argument)]
SysctlName = Annotated[str, AfterValidator(checks.sysctl_name)]
SysctlValue = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(checks.kernel_argument)]


class KernelSettings(Settings):
    """The kernel."""

    kernel: Annotated[
        FilePath | None,
        Option(
            "kernel",
            "FILE",
            "another kernel than the image's (a bzImage, or an ELF file with PVH); without `initrd` it gets none",
        ),
    ] = None
    initrd: Annotated[
        FilePath | None,
        Option("kernel", "FILE", "another initrd than the image's"),
    ] = None
    kernel_args: Annotated[
        tuple[KernelArgument, ...],
        Option("kernel", "ARG", "a word to add to the kernel command line"),
    ] = ()
    kernel_modules: Annotated[
        tuple[Annotated[str, AfterValidator(checks.module_name)], ...],
        Option("kernel", "NAME", "a kernel module that is loaded when the guest has started"),
    ] = ()
    sysctls: Annotated[
        Mapping[SysctlName, SysctlValue],
        *ReadOnly,
        Option("kernel", "NAME=VALUE", "a kernel parameter that is set when the guest has started (sysctl(8))",
               split=shlex.split, pairs=pairs_like("NAME=VALUE", "vm.swappiness=10")),
    ] = Field(default_factory=NO_ENTRIES)  # fmt: skip

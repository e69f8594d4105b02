"""The machine types that a QEMU has, by its own account (QMP, query-machines)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.host.process import run_command
from vmrunner.host.qemu import Qemu

_QUESTIONS: Final = ("qmp_capabilities", "query-machines", "quit")
_SECONDS: Final = 20.0


@dataclass(frozen=True)
class MachineType:
    """What a machine type can: how many CPUs at most, and whether CPUs can be plugged in while it runs."""

    name: str
    most_cpus: int
    hot_pluggable_cpus: bool
    deprecated: bool


def read_machine_types(qemu: Qemu, *, deadline: Deadline) -> dict[str, MachineType]:
    """All machine types by name; 0.1 s (measured). Raises HostError where QEMU does not answer."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-qemu-") as directory:
        script = Path(directory) / "monitor"
        script.write_text("".join(json.dumps({"execute": question}) + "\n" for question in _QUESTIONS))
        argv: list[str | Path] = [
            qemu.path, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio",
        ]  # fmt: skip
        done = run_command(argv, deadline=deadline.within(_SECONDS), check=False, stdin=script)
    for line in done.stdout.splitlines():
        answer = json.loads(line).get("return") if line.startswith("{") else None
        if isinstance(answer, list):
            return {
                one["name"]: MachineType(
                    one["name"], one["cpu-max"], one["hotpluggable-cpus"], one.get("deprecated", False)
                )
                for one in answer
            }
    raise HostError(
        f"`{qemu.path}` does not say which machine types it has", details=done.stderr.strip() or None
    )

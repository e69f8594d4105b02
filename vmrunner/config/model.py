"""Every setting, one row each: type, default, limits, group, help. All other forms are derived from here.

The rows are in `vmrunner.config.settings`, one file a group. The field `cpu_model` is the key `cpu-model` in
vmrunner.yaml, the flag `--cpu-model` and the variable `VMRUNNER_CPU_MODEL`; fields that hold many values have a
repeatable flag named for one (`packages`, `--package`). `vmrunner.config.rows` derives these names.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmrunner.config.settings.archive import ArchiveSettings
from vmrunner.config.settings.cpu import CpuSettings
from vmrunner.config.settings.devices import DeviceSettings
from vmrunner.config.settings.disk import DiskSettings
from vmrunner.config.settings.guest import GuestSettings
from vmrunner.config.settings.image import ImageSettings
from vmrunner.config.settings.kernel import KernelSettings
from vmrunner.config.settings.machine import MachineSettings
from vmrunner.config.settings.memory import MemorySettings
from vmrunner.config.settings.network import NetworkSettings
from vmrunner.config.settings.run import RunSettings


class Config(
    # The last is the first in every list of settings: fields come in the reverse of this order.
    RunSettings,
    ArchiveSettings,
    GuestSettings,
    KernelSettings,
    DeviceSettings,
    NetworkSettings,
    DiskSettings,
    MemorySettings,
    CpuSettings,
    MachineSettings,
    ImageSettings,
):
    """What the user asked for, complete and checked; nothing in it can be changed.

    Sizes are bytes, durations seconds. Raises pydantic's ValidationError; `vmrunner.config.load` turns that into
    a ConfigError that names where the value came from.
    """

    def guest_env(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`env` with the host's values filled in from `environ`; a variable the host lacks is left out.

        The host's values are not kept in the Config, so that a printed one shows no secrets.
        """
        given = {name: environ.get(name) if value is None else value for name, value in self.env.items()}
        return {name: value for name, value in given.items() if value is not None}

"""Whether a run's archive and sources fit the image it is to run in, found out before a machine is started for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.events import Emit, Note
from vmrunner.host.nix_store import find_host_store
from vmrunner.image.manifest import Image
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.arguments import NextestArguments, option_value
from vmrunner.nextest.configuration import required_nextest
from vmrunner.nextest.extract import ExtractedArchive
from vmrunner.nextest.preflight import StoreNeeds, check_archive
from vmrunner.nextest.tool import NextestTool
from vmrunner.nextest.unfit import store_path_not_shared
from vmrunner.nextest.versions import check_required, is_older_than_maker

_MADE_WITHOUT = "the machine was made without this host's store"
_WHY_NOT = {
    "auto": _MADE_WITHOUT,
    "share": _MADE_WITHOUT,
    "copy": "only a nixos image that is built for the run can have a copy",
    "off": "`nix-store` is off",
}


class Fitness:
    """What is known of how an archive fits an image; `check` finds it out."""

    def __init__(
        self,
        config: Config,
        arguments: NextestArguments,
        extracted: ExtractedArchive,
        *,
        workspace: Path,
        tool: NextestTool,
        environment: Mapping[str, str],
    ) -> None:
        self.needs = StoreNeeds()
        self._config = config
        self._arguments = arguments
        self._extracted = extracted
        self._workspace = workspace
        self._tool = tool
        self._environment = environment
        self._image = ""

    def check(self, image: Image, *, emit: Emit) -> None:
        """Raise ArchiveError where guests of `image` cannot run the tests, even with what this host's store has."""
        guest = abilities_of(image, tool=self._tool, environment=self._environment)
        self._image = guest.image
        self._check_nextest(guest, carried=image.manifest.nextest is None, emit=emit)
        self.needs = check_archive(self._extracted, guest=guest, store=find_host_store())

    @property
    def store_paths_to_copy(self) -> tuple[str, ...]:
        """What has to be copied into an image that is built for the run; empty where nothing is to be copied."""
        return tuple(self.needs.from_host) if self._config.nix_store == "copy" else ()

    def require_store(self, *, shared: bool) -> None:
        """Raise ArchiveError where the archive needs what only this host's store has, and the run is not to see it.

        `shared`: its machine can.
        """
        if self.needs.from_host and (not shared or self._config.nix_store == "off"):
            reason = _WHY_NOT[self._config.nix_store]
            raise store_path_not_shared(self.needs.from_host, self._image, reason=reason)

    def _check_nextest(self, guest: GuestAbilities, *, carried: bool, emit: Emit) -> None:
        arguments = self._arguments.run
        required = required_nextest(self._workspace, config_file=option_value(arguments, "--config-file"))
        check_required(required, guest=guest, arguments=arguments, carried=carried)
        # Who made an archive from elsewhere is not known.
        if self._config.archive is None and is_older_than_maker(guest, self._tool.version):
            emit(
                Note(
                    f"the nextest of the image `{guest.image}` ({guest.nextest}) is older than {self._tool.version}, which"
                    " made the archive; nextest advises the same version for both",
                    "warning",
                )
            )


def abilities_of(image: Image, *, tool: NextestTool, environment: Mapping[str, str]) -> GuestAbilities:
    """What guests of `image` offer; `tool` is carried into those that have no nextest of their own."""
    manifest = image.manifest
    return GuestAbilities(
        image=manifest.name,
        architecture=manifest.architecture,
        glibc=manifest.glibc,
        interpreters=frozenset(manifest.interpreters),
        libraries=frozenset(manifest.libraries),
        store_paths=frozenset(manifest.store_paths),
        nextest=manifest.nextest or tool.version,
        environment=environment,
    )

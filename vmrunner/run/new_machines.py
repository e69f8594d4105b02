"""The machines of a run that has machines of its own: one, or one for each shard."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from vmrunner.config.model import Config
from vmrunner.events import Emit, Note, phase
from vmrunner.host.deadline import Deadline
from vmrunner.image.manifest import Image
from vmrunner.image.request import ImageRequest
from vmrunner.image.resolve import locate_image, resolve_image
from vmrunner.image.store import hold
from vmrunner.nextest.tool import NextestTool
from vmrunner.run.directory import RunDirectory
from vmrunner.run.emulator import choose_emulator
from vmrunner.run.launch import Launch, LaunchRequest, launching
from vmrunner.run.requirements import check_settings


class NewMachines:
    """What the machines of one run have in common. Raises ConfigError, HostError, ImageError where they cannot be."""

    def __init__(
        self, run: RunDirectory, config: Config, tool: NextestTool, *, emit: Emit, deadline: Deadline
    ) -> None:
        check_settings(config)
        self._config = config
        self._tool = tool
        self._emit = emit
        self._deadline = deadline
        self._qemu, self._accelerator = choose_emulator(config, emit=emit, deadline=deadline)
        with phase(emit, "image", "Looking for the image") as current:
            self._located = locate_image(ImageRequest.of(config), emit=emit)
            current.text = self._located.image.label if self._located.built else "not built yet"
        numbers = range(1, config.shards + 1)
        self._runs = [run] if config.shards == 1 else [run.shard(number) for number in numbers]

    @property
    def image(self) -> Image | None:
        """Their image, where it is built already."""
        return self._located.image if self._located.built else None

    def build_image(self, *, store_paths: tuple[str, ...] = ()) -> Image:
        """Build the image first; `store_paths` of this host's Nix store are copied into it."""
        with phase(self._emit, "image", "Building the image") as current:
            # Which image it is and why was said when it was located.
            request = ImageRequest.of(self._config, store_paths=store_paths)
            image = resolve_image(request, emit=self._without_notes, deadline=self._deadline)
            current.text = image.label
        return image

    def launch(self, image: Image, stack: ExitStack, *, store: Path | None) -> list[Launch]:
        """Begin to launch them; `stack` stops them. `store` is the Nix store of this host that they may see."""
        stack.enter_context(hold(image))
        carried = None if image.manifest.nextest else self._tool
        requests = [
            LaunchRequest(self._config, run, image, self._qemu, self._accelerator, carried, store)
            for run in self._runs
        ]
        return [
            stack.enter_context(launching(request, emit=self._emit, deadline=self._deadline))
            for request in requests
        ]

    def _without_notes(self, event: object) -> None:
        if not isinstance(event, Note):
            self._emit(event)  # type: ignore[arg-type]  # what is no note is still an event

"""Real machines, real nextest: what the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CRATES, CommandLine
from crate_copies import CopyCrate, archive_crate, copy_crate
from long_lived import LongLivedVm
from shared_vm import is_up, shared_vm

from vmrunner.host.paths import cache_dir


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--image DIR`: the image to test instead of the Debian one."""
    parser.addoption(
        "--image", type=Path, metavar="DIR", help="directory of an image that keeps the guest contract"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this directory have the marker `e2e`."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def target_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where cargo builds, so that no crate of the repository gets a target directory."""
    return tmp_path_factory.mktemp("target")


@pytest.fixture(scope="session")
def debian_image(tmp_path_factory: pytest.TempPathFactory, target_directory: Path) -> Path:
    """The directory of the Debian image; it is built where it is not in the user's cache yet."""
    state = tmp_path_factory.mktemp("state")
    command_line = CommandLine(state, cache_dir().parent, target_directory)
    built = command_line.start("image", "build", "--image", "debian").finish(seconds=560)
    assert built.code == 0, built.stderr
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Path:
    """The directory of the image under test: the one that `--image` names, else the Debian one."""
    given: Path | None = request.config.getoption("--image")
    if given is None:
        built: Path = request.getfixturevalue("debian_image")
        return built
    return given.resolve()


@pytest.fixture
def vmrunner(tmp_path: Path, target_directory: Path, image: Path) -> Iterator[CommandLine]:
    """The command line with a state directory of its own, the user's cache, and the image set to the built one."""
    variables: dict[str, str | None] = {"VMRUNNER_IMAGE": str(image)}
    command_line = CommandLine(tmp_path / "state", cache_dir().parent, target_directory, variables)
    yield command_line
    command_line.abandon_all()


@pytest.fixture(scope="module")
def vm_of_file(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongLivedVm]:
    """One VM for all tests of a file, which have it as `vm`."""
    with shared_vm("shared", image=image, state=tmp_path_factory.mktemp("state")) as vm:
        yield vm


@pytest.fixture
def vm(vm_of_file: LongLivedVm) -> Iterator[LongLivedVm]:
    """The VM that all tests of a file share, up; what a test has left in it is there."""
    if not is_up(vm_of_file):
        assert vm_of_file.run("reset").code == 0
    yield vm_of_file
    vm_of_file.vmrunner.abandon_all()


@pytest.fixture
def vmrunner_in_place(vmrunner: CommandLine) -> CommandLine:
    """The same for copied crates: cargo builds each in its own target directory."""
    return replace(vmrunner, target_directory=None)


@pytest.fixture
def bare_vmrunner(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with state and cache directories of its own, in which there is no image."""
    command_line = CommandLine(tmp_path / "state", tmp_path / "cache", None)
    yield command_line
    command_line.abandon_all()


@pytest.fixture
def copied_crate(tmp_path: Path) -> CopyCrate:
    """Copies a crate of the repository into a git repository of its own, for tests that change it."""
    return lambda name: copy_crate(name, tmp_path / "crates" / name)


@pytest.fixture(scope="session")
def mydns_archive(tmp_path_factory: pytest.TempPathFactory, target_directory: Path) -> Path:
    """A nextest archive of mydns, made without vmrunner."""
    directory = tmp_path_factory.mktemp("archive")
    return archive_crate(CRATES / "mydns", directory / "mydns.tar.zst", target_directory)

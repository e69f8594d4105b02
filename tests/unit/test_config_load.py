"""The merge: who is stronger, where each value came from, and one error for all that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vmrunner.config.load import Loaded, load_config
from vmrunner.config.model import Config
from vmrunner.config.rows import all_rows
from vmrunner.config.units import Duration
from vmrunner.errors import ConfigError, exit_code_of


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, with the current directory beside it."""
    elsewhere = tmp_path / "cwd"
    workspace = tmp_path / "workspace"
    elsewhere.mkdir()
    workspace.mkdir()
    monkeypatch.chdir(elsewhere)
    return workspace


def load(
    directory: Path,
    text: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    file: Path | None = None,
) -> Loaded:
    if text is not None:
        (directory / "vmrunner.yaml").write_text(text)
    return load_config(directory=directory, file=file, environ=environ or {}, flags=flags or {})


def refusal(
    directory: Path,
    text: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(directory, text, environ=environ, flags=flags)
    assert exit_code_of(caught.value) == 2
    return caught.value


def test_defaults_alone(directory: Path) -> None:
    loaded = load(directory)
    assert loaded.config == Config()
    assert loaded.file is None
    assert loaded.sources == {row.key: "default" for row in all_rows()}


@pytest.mark.parametrize(
    ("text", "environ", "flags", "memory", "source"),
    [
        (None, {}, {}, "2G", "default"),
        ("memory: 3G", {}, {}, "3G", "vmrunner.yaml:1"),
        ("memory: 3G", {"VMRUNNER_MEMORY": "4G"}, {}, "4G", "VMRUNNER_MEMORY"),
        ("memory: 3G", {"VMRUNNER_MEMORY": "4G"}, {"memory": "5G"}, "5G", "--memory"),
        ("memory: 3G", {}, {"memory": "5G"}, "5G", "--memory"),
        (None, {"VMRUNNER_MEMORY": "4G"}, {}, "4G", "VMRUNNER_MEMORY"),
        ("memory: 3G", {"VMRUNNER_MEMORY": ""}, {"memory": None}, "3G", "vmrunner.yaml:1"),
        ("memory: 3G", {"VMRUNNER_MEMORY": "2G"}, {}, "2G", "VMRUNNER_MEMORY"),
        ("memory:", {}, {}, "2G", "default"),
    ],
)
def test_strength(
    directory: Path,
    text: str | None,
    environ: dict[str, str],
    flags: dict[str, object],
    memory: str,
    source: str,
) -> None:
    loaded = load(directory, text, environ=environ, flags=flags)
    assert str(loaded.config.memory) == memory
    assert loaded.sources["memory"] == source


def test_stronger_lists_replace(directory: Path) -> None:
    text = "packages: [vim, git]\nkernel-args: [quiet]\n"
    environ = {"VMRUNNER_KERNEL_ARGS": "a=1 'b=x y'"}
    loaded = load(directory, text, environ=environ, flags={"packages": ("iproute2",)})
    assert loaded.config.packages == ("iproute2",)
    assert loaded.config.kernel_args == ("a=1", "b=x y")
    assert (loaded.sources["packages"], loaded.sources["kernel-args"]) == (
        "--package",
        "VMRUNNER_KERNEL_ARGS",
    )


def test_env_merges_by_variable(directory: Path) -> None:
    loaded = load(
        directory,
        "env: {A: yaml, B: yaml, C: yaml}",
        environ={"VMRUNNER_ENV": "B=variable 'C=two words'"},
        flags={"env": ("C", "D=a=b", "E=")},
    )
    assert loaded.config.env == {"A": "yaml", "B": "variable", "C": None, "D": "a=b", "E": ""}
    assert loaded.sources["env"] == "vmrunner.yaml:1, VMRUNNER_ENV, --env"


def test_hosts_merge_by_host_name(directory: Path) -> None:
    loaded = load(
        directory,
        "hosts:\n  10.0.0.1: [a.test, b.test]\n  10.0.0.2: c.test\n  fd00::2: c.test\n",
        environ={"VMRUNNER_HOSTS": "d.test=10.0.0.1, e.test=::1"},
        flags={"hosts": ("B.test=10.0.0.9", "c.test=10.0.0.9", "c.test=fd00::9")},
    )
    assert loaded.config.hosts == {
        "10.0.0.1": ("a.test", "d.test"),
        "::1": ("e.test",),
        "10.0.0.9": ("B.test", "c.test"),
        "fd00::9": ("c.test",),
    }
    assert loaded.sources["hosts"] == "vmrunner.yaml:1, VMRUNNER_HOSTS, --host"


def test_a_flag_takes_back_a_limit_of_the_project(directory: Path) -> None:
    flags = {"phase_timeouts": ("unit=0",)}
    loaded = load(directory, "phase-timeouts: {unit: 10m, archive: 2m}", flags=flags)
    assert loaded.config.phase_timeouts == {"unit": Duration(0), "archive": Duration(120)}


def test_typed_flags_are_taken_as_they_are(directory: Path) -> None:
    flags = {"cpus": 3, "hosts": {"10.0.0.1": ["a"]}, "archive": Path("/a.tar.zst")}
    config = load(directory, flags=flags).config
    assert (config.cpus, config.hosts, config.archive) == (3, {"10.0.0.1": ("a",)}, Path("/a.tar.zst"))


def test_unknown_field_in_flags_is_the_callers_bug(directory: Path) -> None:
    with pytest.raises(KeyError, match="memroy"):
        load(directory, flags={"memroy": "1G"})


def test_paths_count_from_where_they_are_written(directory: Path) -> None:
    loaded = load(directory, "archive: a.tar.zst\nimage: ./img\n")
    assert (loaded.config.archive, loaded.config.image) == (directory / "a.tar.zst", directory / "img")
    cwd = Path.cwd()
    loaded = load(directory, environ={"VMRUNNER_ARCHIVE": "b.tar.zst"}, flags={"image": "./debian"})
    assert (loaded.config.archive, loaded.config.image) == (cwd / "b.tar.zst", cwd / "debian")
    assert load(directory, "archive: /abs.tar.zst").config.archive == Path("/abs.tar.zst")


def test_image_names_are_no_paths(directory: Path) -> None:
    assert load(directory, "image: debian").config.image == "debian"


def test_file_of_a_parent_is_named_as_seen_from_the_workspace(directory: Path) -> None:
    (directory / ".git").mkdir()
    crate = directory / "crates" / "a"
    crate.mkdir(parents=True)
    (directory / "vmrunner.yaml").write_text("cpus: 4\narchive: a.tar.zst\n")
    loaded = load(crate)
    assert loaded.file == directory / "vmrunner.yaml"
    assert loaded.sources["cpus"] == "../../vmrunner.yaml:1"
    assert loaded.config.archive == directory / "a.tar.zst"


def test_named_file_is_read_in_place_of_the_found_one(directory: Path) -> None:
    Path("ci.yaml").write_text("cpus: 7\narchive: a.tar.zst\n")
    loaded = load(directory, "cpus: 4\nmemory: 4G\n", file=Path("ci.yaml"))
    assert (loaded.config.cpus, str(loaded.config.memory)) == (7, "2G")
    assert loaded.sources["cpus"] == "ci.yaml:1"
    assert loaded.config.archive == Path.cwd() / "a.tar.zst"


def test_variable_names_the_file_and_the_flag_is_stronger(directory: Path) -> None:
    Path("one.yaml").write_text("cpus: 1\n")
    Path("nine.yaml").write_text("cpus: 9\n")
    environ = {"VMRUNNER_CONFIG": "one.yaml"}
    assert load(directory, environ=environ).config.cpus == 1
    assert load(directory, environ=environ, file=Path("nine.yaml")).config.cpus == 9
    assert load(directory, "cpus: 3", environ={"VMRUNNER_CONFIG": ""}).config.cpus == 3


def test_named_file_must_be_there(directory: Path) -> None:
    error = refusal(directory, environ={"VMRUNNER_CONFIG": "ci/none.yaml"})
    assert error.message == "there is no configuration file ci/none.yaml"


def test_unknown_variable(directory: Path) -> None:
    error = refusal(directory, environ={"VMRUNNER_MEMROY": "1G", "PATH": "/bin", "VMRUNNER": "1"})
    assert error.message == "VMRUNNER_MEMROY: unknown variable"
    assert error.hint == "did you mean 'VMRUNNER_MEMORY'?"
    assert error.details is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"VMRUNNER_MEMORY": "lots"}, "VMRUNNER_MEMORY: not a size: 'lots' (want for example 512M or 2G)"),
        ({"VMRUNNER_CPUS": "0"}, "VMRUNNER_CPUS: too small: '0' (want 1 or more)"),
        ({"VMRUNNER_QEMU_ARGS": "'a"}, 'VMRUNNER_QEMU_ARGS: cannot be split into words: "\'a" (no closing quotation)'),
        ({"VMRUNNER_HOSTS": "a"}, "VMRUNNER_HOSTS: not NAME=ADDRESS: 'a' (want for example db.test=10.0.2.2)"),
        ({"VMRUNNER_ENV": "1A=x"}, "VMRUNNER_ENV: not a variable name: '1A' (want for example RUST_LOG)"),
    ],
)  # fmt: skip
def test_wrong_variables(directory: Path, environ: dict[str, str], message: str) -> None:
    assert refusal(directory, environ=environ).message == message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"memory": "0"}, "--memory: impossible size: '0' (want 128M to 64T)"),
        ({"memory": ""}, "--memory: not a size: '' (want for example 512M or 2G)"),
        (
            {"packages": ("UPPER",)},
            "--package: not a Debian package name: 'UPPER' (want for example iproute2)",
        ),
        ({"hosts": ("a.test",)}, "--host: not NAME=ADDRESS: 'a.test' (want for example db.test=10.0.2.2)"),
        ({"hosts": ("a b=10.0.0.1",)}, "--host: not a host name: 'a b' (want for example db.test)"),
        ({"env": ("=x",)}, "--env: not a variable name: '' (want for example RUST_LOG)"),
        ({"archive": ""}, "--archive: an empty path"),
        ({"format": "xml"}, "--format: not a choice: 'xml' (want 'text' or 'json')"),
    ],
)
def test_wrong_flags(directory: Path, flags: dict[str, object], message: str) -> None:
    assert refusal(directory, flags=flags).message == message


def test_everything_wrong_is_told_at_once(directory: Path) -> None:
    error = refusal(
        directory,
        "memroy: 1G\ncpus: x\n",
        environ={"VMRUNNER_DISK": "0", "VMRUNNER_ACEL": "kvm"},
        flags={"timeout": "soon"},
    )
    assert error.message == "vmrunner.yaml:1: unknown key 'memroy'"
    assert error.hint == "did you mean 'memory'?"
    assert error.details == (
        "also wrong:\n"
        "vmrunner.yaml:2: cpus: not a whole number: 'x'\n"
        "VMRUNNER_ACEL: unknown variable (did you mean 'VMRUNNER_ACCEL'?)\n"
        "VMRUNNER_DISK: impossible size: '0' (want 1G to 64T)\n"
        "--timeout: not a duration: 'soon' (want for example 90s, 30m or 1h30m)"
    )


def test_a_wrong_value_is_told_even_where_a_stronger_one_is_right(directory: Path) -> None:
    error = refusal(directory, "memory: lots\n", flags={"memory": "2G"})
    assert error.message.startswith("vmrunner.yaml:1: memory: not a size")


def test_durations_stay_exact_through_the_merge(directory: Path) -> None:
    assert load(directory, "timeout: 1.123456789s").config.timeout == 1.123456789

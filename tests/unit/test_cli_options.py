"""Rows as click options: names, what is collected, help and completion."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from vmrunner.cli.options import config_options
from vmrunner.config.load import load_config
from vmrunner.config.option import SHAPE
from vmrunner.config.rows import all_rows


@click.command()
@click.argument("workspace", default=".")
@click.option("--json", "as_json", is_flag=True)
@config_options(*SHAPE, "guest", "archive", "run")
@click.pass_context
def everything(context: click.Context, /, workspace: str, as_json: bool, **given: Any) -> None:
    """Print what was collected."""
    click.echo(json.dumps({"workspace": workspace, "as_json": as_json, **given}, default=str))


@click.command()
@config_options("cpu", "memory")
def machine_only(config_file: Path | None, flags: dict[str, object]) -> None:
    """Print what was collected."""
    click.echo(json.dumps(flags))


def collected(*argv: str) -> dict[str, Any]:
    result = CliRunner().invoke(everything, argv)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.output)
    return document


def completions(command: click.Command, args: list[str], incomplete: str) -> list[tuple[str, str]]:
    found = ShellComplete(command, {}, "vmrunner", "_VMRUNNER_COMPLETE").get_completions(args, incomplete)
    return [(item.value, item.type) for item in found]


def test_nothing_given_is_nothing_collected() -> None:
    assert collected() == {"workspace": ".", "as_json": False, "config_file": None, "flags": {}}


def test_values_stay_text_under_their_fields_name() -> None:
    flags = collected("--memory", "lots", "--cpu-model", "host", "--cpus", "x")["flags"]
    assert flags == {"memory": "lots", "cpu_model": "host", "cpus": "x"}


def test_many_valued_flags_are_repeatable_and_named_for_one() -> None:
    flags = collected(
        "--package", "vim", "--package", "git", "--host", "a=::1", "--env", "A", "--env", "B=1", "--kernel-arg", "x"
    )["flags"]  # fmt: skip
    assert flags == {
        "packages": ["vim", "git"],
        "hosts": ["a=::1"],
        "env": ["A", "B=1"],
        "kernel_args": ["x"],
    }


def test_values_may_begin_with_a_dash() -> None:
    assert collected("--qemu-arg", "-snapshot", "--qemu-arg=-S")["flags"] == {
        "qemu_args": ["-snapshot", "-S"]
    }


def test_empty_text_is_given() -> None:
    assert collected("--memory", "")["flags"] == {"memory": ""}


def test_config_file_is_a_path() -> None:
    seen: list[object] = []

    @click.command()
    @config_options("run")
    def command(config_file: Path | None, flags: dict[str, object]) -> None:
        seen.append(config_file)

    assert CliRunner().invoke(command, ["--config", "ci.yaml"]).exit_code == 0
    assert seen == [Path("ci.yaml")]


def test_own_parameters_of_the_command_stay() -> None:
    assert collected("somewhere", "--json")["workspace"] == "somewhere"
    assert collected("--json")["as_json"] is True


def test_environment_is_left_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMRUNNER_MEMORY", "7G")
    assert collected()["flags"] == {}


def test_only_the_groups_asked_for() -> None:
    runner = CliRunner()
    assert json.loads(runner.invoke(machine_only, ["--cpus", "3"]).output) == {"cpus": "3"}
    refused = runner.invoke(machine_only, ["--package", "vim"])
    assert refused.exit_code == 2
    assert "No such option" in refused.output


def test_single_options_are_left_out() -> None:
    @click.command()
    @config_options("cpu", "memory", leave_out=["memory"])
    def without_memory(config_file: Path | None, flags: dict[str, object]) -> None:
        click.echo(json.dumps(flags))

    runner = CliRunner()
    assert json.loads(runner.invoke(without_memory, ["--cpus", "3"]).output) == {"cpus": "3"}
    assert runner.invoke(without_memory, ["--memory", "3G"]).exit_code == 2


def test_what_is_collected_is_what_the_loader_takes(tmp_path: Path) -> None:
    flags = collected("--memory", "3G", "--host", "a.test=10.0.0.1", "--env", "A=1", "--nextest-arg", "-v")[
        "flags"
    ]
    config = load_config(directory=tmp_path, file=None, environ={}, flags=flags).config
    assert str(config.memory) == "3G"
    assert config.hosts == {"10.0.0.1": ("a.test",)}
    assert config.env == {"A": "1"}
    assert config.nextest_args == ("-v",)


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.key)
def test_help_tells_flag_default_and_variable(row: Any) -> None:
    text = " ".join(CliRunner().invoke(everything, ["--help"], terminal_width=200).output.split())
    assert f"{row.flag} {row.option.metavar}" in text
    assert f"env: {row.variable}]" in text
    if row.default:
        assert f"[default: {row.default};" in text


def test_options_come_in_the_order_of_the_rows() -> None:
    parameters = [name for parameter in everything.params for name in parameter.opts if name.startswith("--")]
    assert parameters == ["--json", "--config", *(row.flag for row in all_rows())]


@pytest.mark.parametrize(
    ("args", "incomplete", "found"),
    [
        (["--accel"], "", [("auto", "plain"), ("kvm", "plain"), ("tcg", "plain")]),
        (["--accel"], "k", [("kvm", "plain")]),
        (["--image"], "de", [("debian", "plain")]),
        (["--image"], "./", [("./", "file")]),
        (["--archive"], "x", [("x", "file")]),
        (["--memory"], "1", []),
        ([], "--boot", [("--boot-timeout", "plain")]),
    ],
)
def test_completion(args: list[str], incomplete: str, found: list[tuple[str, str]]) -> None:
    assert completions(everything, args, incomplete) == found


@pytest.mark.parametrize("verb", ["test", "up", "tune", "plan"])
def test_help_has_a_section_for_each_group(verb: str) -> None:
    done = CliRunner().invoke(importlib.import_module(f"vmrunner.cli.{verb}").command, ["--help"])
    headings = [
        line.rstrip(":")
        for line in done.output.splitlines()
        if line.endswith("settings:") or line == "Options:"
    ]
    assert headings[0] == "Options"
    wanted = [
        "CPU settings",
        "Memory settings",
        "Disk settings",
        "Network settings",
        "Devices settings",
        "Kernel settings",
    ]
    assert [heading for heading in headings if heading in wanted] == wanted
    _, _, network = done.output.partition("Network settings:")
    assert "--net-rate" in network.partition("Devices settings:")[0]

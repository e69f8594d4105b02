"""`vmrunner doctor`: what this computer has, what it lacks, and what to do about it."""

from __future__ import annotations

import click

from vmrunner.cli.findings import show_checks
from vmrunner.errors import HostError
from vmrunner.host.deadline import Deadline
from vmrunner.host.doctor import Check, Question, run_checks
from vmrunner.host.signals import interruptible

DOCTOR_SECONDS = 60.0


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Check this computer: each thing found, and what to do about what is missing.

    The exit code is 0 where nothing keeps `vmrunner test` from working, else 20.

    \b
    Example:
      vmrunner doctor
    """
    with interruptible():
        checks = run_checks(all_questions(), deadline=Deadline.after(DOCTOR_SECONDS))
    problems = show_checks(checks, as_json=as_json)
    context.exit(HostError.exit_code if problems else 0)


def all_questions() -> tuple[Question, ...]:
    """What the host room asks, and what the rooms above it need."""
    from vmrunner.host.checks import host_questions

    return (
        *host_questions(),
        Question("cargo-nextest", _check_nextest),
        Question("debian images", _check_debian_builder),
        Question("nixos images", _check_nixos_builder),
    )


def _check_nextest(deadline: Deadline) -> list[Check]:
    from vmrunner.nextest.tool import find_nextest

    tool = find_nextest(deadline=deadline)
    return [Check("cargo-nextest", "ok", f"{tool.version} ({tool.path})")]


def _check_debian_builder(deadline: Deadline) -> list[Check]:
    from vmrunner.image.prerequisites import build_mode, check_tools
    from vmrunner.image.recipe import debian_recipe

    check_tools(debian_recipe().keyring)
    rights = {"root": "as root", "unshare": "in a user namespace"}[build_mode(deadline)]
    return [Check("debian images", "ok", f"can be built, {rights}")]


def _check_nixos_builder(deadline: Deadline) -> list[Check]:
    import shutil

    from vmrunner.errors import ImageBuildFailed
    from vmrunner.image.nixos.nix_build import nix_version
    from vmrunner.image.nixos.nixpkgs import check_pin

    if shutil.which("nix-build") is None:
        return [Check("nixos images", "ok", "need Nix, which is not installed; nothing else does")]
    try:
        check_pin(nix_version(deadline=deadline))
    except ImageBuildFailed as error:
        return [Check("nixos images", "warning", error.message, error.hint)]
    return [Check("nixos images", "ok", "can be built")]

"""What Nix's failures mean: each was provoked with both Nix versions, and what newer ones say is from their reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from nix_samples import NIX_STORE, VERSIONS, failure_of, log_of, message

from vmrunner.errors import ImageBuildFailed, exit_code_of
from vmrunner.host.paths import data_dir
from vmrunner.image.nixos.ended import Ended
from vmrunner.image.nixos.failure import nix_failure

DERIVATION = "/nix/store/" + "a" * 32 + "-linux-6.12.drv"


def failed(*errors: str, code: int = 1, lines: tuple[str, ...] = ()) -> ImageBuildFailed:
    log = log_of([*lines, *(message(f"error: {text}", raw_msg=text) for text in errors)])
    return nix_failure(Ended(("/usr/bin/nix-build", "/x", "-A", "image"), code, (NIX_STORE,)), log)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("builder", "building broken failed with exit code 3", "nix-store --read-log /nix/store/"),
        ("dependency", "building broken failed with exit code 3", "nix-store --read-log /nix/store/"),
        ("noOutput", "building forgetful failed to produce output path", "--read-log"),
        ("hash", "the hash of fixed is not the one that was given", "write the hash"),
        ("fetch", "the hash of file:///home/user/project/archive.tar.gz is not", "write the hash"),
        ("download", "http://127.0.0.1:9/archive.tar.gz cannot be downloaded: could", "https_proxy"),
        ("builtinDownload", "http://127.0.0.1:9/archive.tar.gz cannot be downloaded: could", "https_proxy"),
        ("timeout", "Nix gave up building sleepy after 1 seconds", "nix.conf"),
        ("silence", "Nix gave up building sleepy after 1 seconds of silence", "max-silent-time"),
        ("feature", "building demanding needs the system feature vmrunner-test", "one of your `modules:`"),
        ("system", "foreign must be built on riscv64-linux, and this computer builds", "remote builder"),
        ("full", "the disk filled up while the NixOS image was built", "nix-collect-garbage"),
        (
            "daemon",
            "the Nix daemon cannot be reached at /nix/var/nix/daemon-socket/socket: No such",
            "systemctl start",
        ),
        ("buildUsers", "the group nogroup of its build users has no members", "build-users-group ="),
        ("noGroup", "the group nosuch of its build users does not exist", "build-users-group ="),
        ("permission", "Nix cannot use /nix/var/nix/", "daemon"),
        ("interrupted", "Nix was interrupted", "again"),
        ("searchPath", "asks for <nixpkgs>, but neither NIX_PATH nor channels are used", "`nixpkgs:`"),
        ("tooOld", "this nixpkgs needs Nix 99.1 or newer", "25.05"),
        ("evaluation", "at /home/user/project/module.nix:2: services.example needs a port", "`modules:`"),
        ("syntax", "at /home/user/project/syntax.nix:", "`modules:`"),
        ("option", "Failed assertions: - services.example.port must be set", "modules"),
        ("missingAttribute", "attribute 'nosuch' in selection path 'nosuch' not found", "modules"),
    ],
)
def test_meaning(version: str, name: str, says: str, hint: str) -> None:
    error = failure_of(version, name)
    assert says in error.message
    assert not error.message.endswith(".")
    assert hint in (error.hint or "")
    assert exit_code_of(error) == 21
    details = error.details or ""
    assert details.startswith("command: /usr/bin/nix-build /x\nexit code: ")
    assert "\x1b" not in details and "@nix" not in details


@pytest.mark.parametrize("version", VERSIONS)
def test_details_of_a_failed_builder_are_the_end_of_its_log(version: str) -> None:
    assert (failure_of(version, "dependency").details or "").endswith("line 48\nline 49\nno such thing")


@pytest.mark.parametrize("version", VERSIONS)
def test_details_of_a_wrong_hash_are_both(version: str) -> None:
    lines = (failure_of(version, "hash").details or "").splitlines()
    assert lines[2] == "wanted: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    assert lines[3].startswith("got:    sha256-")


@pytest.mark.parametrize("version", VERSIONS)
def test_details_of_a_full_disk_have_the_builders_line(version: str) -> None:
    assert "error writing 'standard output'" in (failure_of(version, "full").details or "")


@pytest.mark.parametrize("version", VERSIONS)
def test_details_of_a_mistake_say_where(version: str) -> None:
    assert "  at /home/user/project/module.nix:2" in (failure_of(version, "evaluation").details or "")


def test_failed_builder_as_newer_nix_says_it() -> None:
    error = failed(
        f"Cannot build '{DERIVATION}'.\nReason: builder failed with exit code 2.\nOutput paths:\n  /nix/store/x",
        "Cannot build '/nix/store/y-image.drv'.\nReason: 1 dependency failed.\nOutput paths:\n  /nix/store/z",
    )
    assert error.message == "building linux-6.12 failed with exit code 2"


def test_missing_feature_as_newer_nix_says_it() -> None:
    error = failed(
        f"Cannot build '{DERIVATION}'.\nReason: required system or feature not available\n"
        "Required system: 'x86_64-linux' with features {kvm, big-parallel}\n"
        "Current system: 'x86_64-linux' with features {benchmark, big-parallel}"
    )
    assert error.message == "building linux-6.12 needs the system feature kvm, which this Nix does not have"


def test_error_that_comes_from_the_daemon_keeps_the_way_it_was_reached() -> None:
    error = failed(
        f"build of '{DERIVATION}' on 'ssh://builder' failed: builder for '{DERIVATION}' failed with exit code 1"
    )
    assert "building linux-6.12 failed" in error.message


def test_full_disk_in_nix_itself() -> None:
    assert "the disk filled up" in failed("writing to file: No space left on device").message


def test_line_about_a_full_disk_alone_is_no_full_disk() -> None:
    line = '@nix {"action":"result","id":1,"type":101,"fields":["No space left on device: test passed"]}'
    start = f'@nix {{"action":"start","id":1,"type":105,"fields":["{DERIVATION}"],"text":""}}'
    assert "disk" not in failed("undefined variable 'x'", lines=(start, line)).message


@pytest.mark.parametrize(
    ("why", "shown"),
    [
        ("HTTP error 404 ('Not Found')", "HTTP error 404"),
        ("HTTP error 404)", "HTTP error 404"),
        ("Couldn't resolve host name (6)", "couldn't resolve host name"),
        ("Could not resolve hostname (6) Could not resolve host: x.example", "could not resolve hostname"),
    ],
)
def test_reason_of_a_failed_download(why: str, shown: str) -> None:
    error = failed(f"unable to download 'https://x.example/y': {why}")
    assert error.message == f"https://x.example/y cannot be downloaded: {shown}"


def test_module_that_may_not_be_read() -> None:
    error = failed("opening file '/home/user/vm.nix': Permission denied")
    assert error.message == "Nix cannot use /home/user/vm.nix: Permission denied"


def test_builder_that_may_not_do_something_is_a_failed_builder() -> None:
    error = failed(
        f"builder for '{DERIVATION}' failed with exit code 1;\nlast log lines:\n> '/x': Permission denied"
    )
    assert error.message == "building linux-6.12 failed with exit code 1"


def test_killed_nix() -> None:
    error = failed(code=-9)
    assert error.message == "nix-build was killed by SIGKILL"
    assert "memory" in (error.hint or "")
    assert "memory" not in (failed(code=-11).hint or "")
    assert failed(code=-40).message == "nix-build was killed by signal 40"


def test_mistake_outside_of_the_users_files_accuses_no_module() -> None:
    own = data_dir("nix") / "guest.nix"
    text = "error: attribute 'x' missing\n at /nix/store/y-source/lib/modules.nix:7:3:\n"
    log = log_of([message(f"{text} at {own}:3:1:", raw_msg="attribute 'x' missing")])
    error = nix_failure(Ended(("nix-build",), 1, (NIX_STORE,)), log)
    assert error.message == "Nix cannot evaluate the image: attribute 'x' missing"
    assert "  at /nix/store/y-source/lib/modules.nix:7" in (error.details or "")


def test_users_own_file_is_named_though_nixpkgs_noticed_the_mistake() -> None:
    trace = [{"file": "/nix/store/y/lib/types.nix", "line": 9}, {"file": "/home/user/vm.nix", "line": 4}]
    log = log_of([message("error: x", raw_msg="a string is expected", trace=trace)])
    error = nix_failure(Ended(("nix-build",), 1, (Path("/nix/store"),)), log)
    assert error.message.startswith("Nix cannot evaluate the image at /home/user/vm.nix:4")


def test_failure_without_a_word() -> None:
    error = failed(lines=("Killed by something",))
    assert error.message == "nix-build failed with exit code 1"
    assert "Killed by something" in (error.details or "")


def test_message_is_one_line_of_bounded_length() -> None:
    message = failed("x" * 10_000 + "\nmore").message
    assert "\n" not in message and len(message) < 300

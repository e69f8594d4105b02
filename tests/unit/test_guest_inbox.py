"""What the guest is given: the files word for word, where the workspace goes, and that a shell reads them as meant."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from vmrunner.guest.inbox import (
    REMAPPED_WORKSPACE,
    GuestLayout,
    Job,
    installed_nextest,
    layout_for,
    render_hosts,
    render_job,
    render_mounts,
    render_script,
)
from vmrunner.guest.preparation import PREPARE

LAYOUT = GuestLayout(PurePosixPath("/home/u/ws"), PurePosixPath("/home/u/ws/target"), remapped=False)
SPACED = GuestLayout(PurePosixPath("/home/u/my ws"), PurePosixPath("/home/u/my\tws\\t"), remapped=False)
HOSTILE = [
    "", "plain", "two words", "it's", 'a "quote"', "$HOME `id` $(id)", "a;b&c|d>e<f",
    "back\\slash\\", "line\nbreak", "*?[a]~#!", "-n", "ü ✓", "'; exit 1; '",
]  # fmt: skip


def job(layout: GuestLayout = LAYOUT, **more: object) -> Job:
    return Job(**{"layout": layout, "command": ("nextest", "run"), "network": "restricted", **more})  # type: ignore[arg-type]  # fields by name


def run_sh(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the shell that guests have, with nothing of ours in its environment."""
    return subprocess.run(
        ["sh", *arguments],
        input=script,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_the_script_word_for_word() -> None:
    text = render_script(
        job(
            command=("/run/vmrunner/in/bin/cargo-nextest", "nextest", "run", "-E", "test(a b)"),
            environment={"RUST_LOG": "debug", "EMPTY": "", "TEXT": "it's"},
        )
    )
    assert text == (
        "# Made by vmrunner for one run.\n"
        "exec >>/run/vmrunner/out/stdout.log 2>>/run/vmrunner/out/nextest.log </dev/null || exit 200\n"
        "[ -d /var/lib/cargo-nextest/overlays/workspace/upper ] && [ -d /var/lib/cargo-nextest/overlays/workspace/work ]"
        " && [ -d /var/lib/cargo-nextest/overlays/target/upper ] && [ -d /var/lib/cargo-nextest/overlays/target/work ]"
        " || mkdir -p /var/lib/cargo-nextest/overlays/workspace/upper /var/lib/cargo-nextest/overlays/workspace/work"
        " /var/lib/cargo-nextest/overlays/target/upper /var/lib/cargo-nextest/overlays/target/work || exit 201\n"
        "[ -e /run/vmrunner/mounted ] || /usr/lib/vmrunner/prepare shares mounts || exit 202\n"
        "cd /home/u/ws || exit 203\n"
        "export VMRUNNER=1 CARGO_TERM_PROGRESS_WHEN=never NEXTEST_DOUBLE_SPAWN=0\n"
        "export NEXTEST_LOG=info,cargo_nextest::dispatch=warn\n"
        "export RUST_LOG=debug\n"
        "export EMPTY=''\n"
        """export TEXT='it'"'"'s'\n"""
        "[ ! -e /run/vmrunner/out/started ] || exit 205\n"
        ": >/run/vmrunner/out/started || exit 204\n"
        "exec /run/vmrunner/in/bin/cargo-nextest nextest run -E 'test(a b)'\n"
    )


@pytest.mark.parametrize("layout", [LAYOUT, SPACED])
@pytest.mark.parametrize("value", HOSTILE)
def test_sh_can_read_every_script(layout: GuestLayout, value: str) -> None:
    text = render_script(job(layout, environment={"V": value}, command=("nextest", value)))
    checked = run_sh(text, "-n")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_sh_takes_environment_values_and_arguments_as_they_are() -> None:
    names = {f"V{number}": value for number, value in enumerate(HOSTILE)}
    lines = render_script(job(environment=names, command=("printf", "%s\\0", *HOSTILE))).splitlines(
        keepends=True
    )
    first = next(number for number, line in enumerate(lines) if line.startswith("export V0="))
    script = "".join(line for line in lines[first:] if not line.startswith(": >"))
    shown = "".join(f'printf "%s\\0" "${name}"\n' for name in names)
    exports, _, command = script.partition("exec printf")
    result = run_sh(f"{exports}{shown}exec printf{command}")
    assert result.returncode == 0
    assert result.stdout.split("\0")[:-1] == HOSTILE * 2


def test_sh_goes_where_it_is_told(tmp_path: Path) -> None:
    strange = tmp_path / "it's $HOME; exit"
    strange.mkdir()
    layout = GuestLayout(PurePosixPath(strange), PurePosixPath(strange / "target"), remapped=False)
    change = next(line for line in render_script(job(layout)).splitlines() if line.startswith("cd "))
    assert run_sh(f"{change}\npwd\n").stdout == f"{strange}\n"


def led_to(directory: Path, script: str) -> str:
    """A script with the guest's paths led to this directory, where the workspace is too."""
    for path in ("/run/vmrunner/out", "/run/vmrunner", "/var/lib", "/home/u/ws"):
        script = script.replace(path, str(directory))
    return script


def test_each_failure_before_nextest_has_a_code_that_nextest_does_not_have(tmp_path: Path) -> None:
    script = render_script(job())
    codes = [int(line.rsplit(" ", 1)[1]) for line in script.splitlines() if "|| exit" in line]
    assert codes == [200, 201, 202, 203, 205, 204]
    local = led_to(tmp_path, script)
    broken = local.replace(PREPARE, "false")
    assert run_sh(broken).returncode == 202
    assert not (tmp_path / "started").exists()
    gone = local.replace(PREPARE, "true").replace(f"cd {tmp_path}", f"cd {tmp_path}/nowhere")
    assert run_sh(gone).returncode == 203


def test_what_runs_gets_the_logs_and_the_mark(tmp_path: Path) -> None:
    script = render_script(job(command=("sh", "-c", "echo out; echo err >&2; cat; exit 104")))
    local = led_to(tmp_path, script).replace(PREPARE, "true")
    assert run_sh(local).returncode == 104
    assert (tmp_path / "stdout.log").read_text() == "out\n"
    assert (tmp_path / "nextest.log").read_text() == "err\n"
    assert (tmp_path / "started").read_bytes() == b""


def test_what_the_host_has_had_mounted_is_not_mounted_again(tmp_path: Path) -> None:
    script = led_to(tmp_path, render_script(job(command=("true",)))).replace(PREPARE, "false")
    assert run_sh(script).returncode == 202
    (tmp_path / "mounted").touch()
    assert run_sh(script).returncode == 0


def test_a_run_is_never_made_twice(tmp_path: Path) -> None:
    script = led_to(tmp_path, render_script(job(command=("sh", "-c", "echo once; exit 100"))))
    (tmp_path / "mounted").touch()
    assert [run_sh(script).returncode for _ in range(2)] == [100, 205]
    assert (tmp_path / "stdout.log").read_text() == "once\n"


def test_the_mounts_word_for_word() -> None:
    assert render_mounts(job()) == (
        "/run/vmrunner/hosts /etc/hosts none bind 0 0\n"
        "/run/vmrunner/in/resolv.conf /etc/resolv.conf none bind 0 0\n"
        "workspace /home/u/ws overlay X-mount.mkdir,lowerdir=/run/vmrunner/in/sources,"
        "upperdir=/var/lib/cargo-nextest/overlays/workspace/upper,"
        "workdir=/var/lib/cargo-nextest/overlays/workspace/work 0 0\n"
        "target /home/u/ws/target overlay X-mount.mkdir,lowerdir=/run/vmrunner/in/target,"
        "upperdir=/var/lib/cargo-nextest/overlays/target/upper,"
        "workdir=/var/lib/cargo-nextest/overlays/target/work 0 0\n"
    )


def test_mounts_of_a_build_directory_and_a_store_of_their_own_come_last() -> None:
    layout = layout_for(Path("/home/u/ws"), Path("/home/u/ws/target"), Path("/scratch/my build"))
    lines = render_mounts(job(layout, store_bind=PurePosixPath("/home/u/ws/my store"))).splitlines()
    assert len(lines) == 6
    assert lines[-2] == "/home/u/ws/target /scratch/my\\040build none X-mount.mkdir,bind 0 0"
    assert lines[-1] == "/run/vmrunner/out/store /home/u/ws/my\\040store none X-mount.mkdir,bind 0 0"


def test_every_line_of_the_mounts_has_six_fields_whatever_the_paths_hold() -> None:
    text = render_mounts(job(SPACED))
    assert [len(line.split()) for line in text.splitlines()] == [6] * 4
    assert " /home/u/my\\040ws overlay " in text
    assert " /home/u/my\\011ws\\134t overlay " in text


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="needs findmnt of util-linux")
def test_util_linux_reads_the_mounts_as_meant(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(render_mounts(job(SPACED)))
    found = subprocess.run(
        ["findmnt", "--raw", "--noheadings", "--output", "TARGET", "--tab-file", tmp_path / "mounts"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    targets = [line.encode().decode("unicode_escape") for line in found.stdout.splitlines()]
    assert set(targets) >= {"/etc/hosts", "/home/u/my ws", "/home/u/my\tws\\t"}


def test_hosts_are_only_the_projects_for_the_guest_has_its_own() -> None:
    assert render_hosts({"52.0.56.137": ["52-0-56-137.nip.io"], "::2": ["a.test", "b.test"]}) == (
        "52.0.56.137 52-0-56-137.nip.io\n::2 a.test b.test\n"
    )
    assert render_hosts({}) == ""


def test_a_name_of_its_own_resolves_in_the_guest() -> None:
    assert render_hosts({"10.0.0.1": ["other"]}, "db-1.test") == "127.0.1.1 db-1.test\n10.0.0.1 other\n"
    assert "127.0.1.1 box\n" in render_job(job(hostname="box"))["hosts"]


def started_by(script: str) -> str:
    """What the last lines of a script start."""
    lines = script.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(": >")) + 1
    return run_sh("\n".join(lines[first:])).stdout


@pytest.mark.parametrize("installed", [True, False])
def test_the_guests_own_copy_of_nextest_is_started_where_it_has_one(tmp_path: Path, installed: bool) -> None:
    """A template may be older than the nextest of this run, or the machine booted without one."""
    own, carried = tmp_path / "own" / "cargo-nextest", tmp_path / "carried"
    own.parent.mkdir()
    for path in [carried, *([own] if installed else [])]:
        path.write_text(f'#!/bin/sh\nprintf "%s|" "{path.name}" "$@"\n')
        path.chmod(0o755)
    script = render_script(
        job(command=(str(carried), "run", "-E", "test(a b)"), installed_nextest=PurePosixPath(own))
    )
    assert started_by(script) == f"{'cargo-nextest' if installed else 'carried'}|run|-E|test(a b)|"


def test_each_nextest_is_installed_in_a_place_of_its_own() -> None:
    first, second = installed_nextest("0.9.148-1-2"), installed_nextest("0.9.148-1-3")
    assert first != second
    assert first.name == second.name == "cargo-nextest"


@pytest.mark.parametrize(
    ("network", "server"), [("none", "127.0.0.1"), ("restricted", "127.0.0.1"), ("user", "10.0.2.3")]
)
def test_the_name_server_belongs_to_the_network(network: str, server: str) -> None:
    files = render_job(job(network=network))
    assert files["resolv.conf"] == f"nameserver {server}\noptions edns0 trust-ad\n"


def test_another_name_server() -> None:
    assert render_job(job(network="user", dns="192.0.2.53"))["resolv.conf"].startswith(
        "nameserver 192.0.2.53\n"
    )


@pytest.mark.parametrize(
    ("network", "host_store", "words"),
    [("none", False, "--net --mount --propagation slave"), ("none", True, "--net --mount --propagation slave"),
     ("user", True, "--mount --propagation slave")],
)  # fmt: skip
def test_namespaces_of_its_own(network: str, host_store: bool, words: str) -> None:
    script = render_script(job(network=network, host_store=host_store))
    assert f"exec unshare {words} /bin/sh" in script
    assert ("ip link set lo up" in script) == (network == "none")


def test_a_job_is_four_files() -> None:
    files = render_job(job(hosts={"10.0.0.1": ["x"]}))
    assert set(files) == {"run", "mounts", "hosts", "resolv.conf"}
    assert files["hosts"] == "10.0.0.1 x\n"
    assert all(text.endswith("\n") for text in files.values())


def test_a_job_that_needs_the_hosts_store_says_so_and_lays_it_before_anything_runs() -> None:
    files = render_job(job(host_store=True))
    assert files["host-store"] == ""
    script = files["run"]
    assert run_sh(script, "-n").returncode == 0
    # Whoever mounts for all does it outside, so that it can be undone there.
    places = [
        script.index(text) for text in ("prepare shares mounts", "unshare --mount", "/nix/store", "cd /home")
    ]
    assert places == sorted(places)
    assert "unshare" not in render_script(job())


@pytest.mark.parametrize("of_its_own", [True, False])
def test_the_store_is_laid_over_the_guests_own_or_where_it_has_none(tmp_path: Path, of_its_own: bool) -> None:
    """Over one, a second look: what was mounted in it is hidden, and that may be what /etc/hosts is."""
    told = tmp_path / "told"
    script = led_to(tmp_path, render_script(job(host_store=True, command=("true",))))
    programs = "".join(f'{name}() {{ echo {name} "$@" >>{told}; }}\n' for name in ("mount", "mkdir"))
    (tmp_path / "mounted").touch()
    (tmp_path / "nix").mkdir()
    if of_its_own:
        (tmp_path / "nix" / "store").mkdir()
    script = script.replace("/nix/store", str(tmp_path / "nix" / "store")).replace('"$1" = inside', "inside")
    assert run_sh(programs + script).returncode == 0
    asked = [line for line in told.read_text().splitlines() if "overlays" not in line]
    store, guests = tmp_path / "nix" / "store", str(tmp_path)
    if of_its_own:
        assert asked == [
            f"mount -t overlay -o ro,lowerdir={store}:{guests}/store store {store}",
            f"mount --bind {guests}/hosts /etc/hosts",
            f"mount --bind {guests}/in/resolv.conf /etc/resolv.conf",
        ]
    else:
        assert asked == [f"mkdir -p {store}", f"mount --bind {guests}/store {store}"]


@pytest.mark.parametrize(
    "workspace",
    [
        "/home/u/ws",
        "/home/u/my ws",
        "/root/ws",
        "/srv/ci/ws",
        "/builds/a",
        "/tmp/x",
        "/var/lib/jenkins/ws",
    ],
)
def test_ordinary_paths_are_kept(workspace: str) -> None:
    layout = layout_for(Path(workspace), Path(workspace) / "target")
    assert layout == GuestLayout(
        PurePosixPath(workspace), PurePosixPath(workspace) / "target", remapped=False
    )


@pytest.mark.parametrize(
    "workspace",
    [
        "/", "/home", "/tmp", "/var", "/var/lib", "/nix", "/nix/store", "/nix/x", "/etc", "/etc/x", "/usr", "/usr/src/x",
        "/run/x", "/dev/shm/x", "/proc/x", "/sys/x", "/bin/x", "/lib64/x", "/boot/x", "/var/lib/cargo-nextest",
        "/var/lib/cargo-nextest/x", "relative/ws", "ws", "/home/u/../../etc", "/home/a\nb", "/home/a\rb",
    ],
)  # fmt: skip
def test_impossible_paths_are_remapped(workspace: str) -> None:
    layout = layout_for(Path(workspace), Path("/home/u/target"))
    assert layout.remapped
    assert layout.workspace == REMAPPED_WORKSPACE
    assert layout.target == REMAPPED_WORKSPACE / "target"
    assert layout.build is None


@pytest.mark.parametrize(("target", "build"), [("/usr/target", None), ("/home/u/t", "/usr/b")])
def test_one_impossible_path_is_enough(target: str, build: str | None) -> None:
    assert layout_for(Path("/home/u/ws"), Path(target), build and Path(build)).remapped  # type: ignore[arg-type]  # None or a path


def test_a_path_that_only_begins_like_a_kept_one_is_fine() -> None:
    assert not layout_for(Path("/etcetera/ws"), Path("/usr2/target")).remapped


def test_a_build_directory_counts_only_where_it_lies_apart() -> None:
    workspace, target = Path("/home/u/ws"), Path("/home/u/ws/target")
    assert layout_for(workspace, target, target).build is None
    assert layout_for(workspace, target, None).build is None
    assert layout_for(workspace, target, Path("/scratch/b")).build == PurePosixPath("/scratch/b")


def test_the_target_is_laid_over_the_workspace_and_not_under_it() -> None:
    assert [overlay.name for overlay in LAYOUT.overlays] == ["workspace", "target"]

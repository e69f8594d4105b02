"""Files into a guest and out of it, over a real SFTP server; and what a guest that lies may not do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from fake_sshd import FakeSshd
from local_guest import LocalFiles, local_guest
from paramiko.sftp_attr import SFTPAttributes

from vmrunner.errors import (
    GuestError,
    GuestLost,
    GuestPanicked,
    HostError,
    UsageError,
    VmrunnerError,
    exit_code_of,
)
from vmrunner.events import Event, Note, PhaseFinished, PhaseProgress, silent
from vmrunner.guest.copying import download, upload
from vmrunner.guest.ssh import Guest
from vmrunner.host.deadline import Deadline

LONG_AGO = 1_000_000_000


@pytest.fixture
def guest() -> Iterator[Guest]:
    with local_guest() as (guest, _):
        yield guest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all that a copy must keep."""
    root = tmp_path / "tree"
    (root / "inner" / "closed").mkdir(parents=True)
    (root / "text").write_text("hello\n")
    (root / "text").chmod(0o640)
    (root / "empty").touch()
    (root / "inner" / "ü n\n").write_bytes(os.urandom(100_000))
    (root / "inner" / "up").symlink_to("../text")
    (root / "dangling").symlink_to("/nowhere")
    (root / "inner" / "closed").chmod(0o500)
    os.utime(root / "text", (LONG_AGO, LONG_AGO))
    os.utime(root / "inner", (LONG_AGO, LONG_AGO))
    return root


def described(root: Path) -> dict[str, object]:
    """Everything below `root` that a copy keeps."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else None
            found[name] = (stat.S_IMODE(status.st_mode), int(status.st_mtime), content)
    return found


def put(guest: Guest, source: str | Path, destination: str | Path) -> list[Event]:
    events: list[Event] = []
    upload(guest, str(source), str(destination), emit=events.append, deadline=Deadline.after(10))
    return events


def get(guest: Guest, source: str | Path, destination: str | Path) -> list[Event]:
    events: list[Event] = []
    download(guest, str(source), str(destination), emit=events.append, deadline=Deadline.after(10))
    return events


WAYS = pytest.mark.parametrize("copy", [put, get])
Copy = Callable[[Guest, "str | Path", "str | Path"], list[Event]]


@WAYS
def test_a_tree_arrives_as_it_was(guest: Guest, tree: Path, tmp_path: Path, copy: Copy) -> None:
    events = copy(guest, tree, tmp_path / "copy")
    assert described(tmp_path / "copy") == described(tree)
    finished = [event for event in events if isinstance(event, PhaseFinished)]
    assert [(event.name, event.failed, event.text) for event in finished] == [
        ("copy", False, "5 files, 97.7 KiB")
    ]


@WAYS
def test_a_directory_takes_the_copy_inside(guest: Guest, tree: Path, tmp_path: Path, copy: Copy) -> None:
    into = tmp_path / "into"
    into.mkdir()
    copy(guest, tree, into)
    copy(guest, f"{tree}/text", f"{into}/")
    assert described(into / "tree") == described(tree)
    assert (into / "text").read_text() == "hello\n"


@WAYS
def test_a_dot_stands_for_the_contents(guest: Guest, tree: Path, tmp_path: Path, copy: Copy) -> None:
    into = tmp_path / "into"
    into.mkdir()
    copy(guest, f"{tree}/.", into)
    assert described(into) == described(tree)


@WAYS
def test_copying_again_replaces_files_and_keeps_the_rest(
    guest: Guest, tree: Path, tmp_path: Path, copy: Copy
) -> None:
    into = tmp_path / "into"
    copy(guest, tree, into)
    (into / "other").write_text("stays")
    (into / "text").chmod(0o600)
    (into / "text").write_text("something longer than hello")
    copy(guest, f"{tree}/.", into)
    assert (into / "other").read_text() == "stays"
    kept = {name: described(into)[name] for name in ("other", "inner")}
    assert described(into) == described(tree) | kept


@WAYS
def test_a_large_file_and_its_progress(guest: Guest, tmp_path: Path, copy: Copy) -> None:
    size = 9_000_001
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    events = copy(guest, source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    told = [event for event in events if isinstance(event, PhaseProgress)]
    assert (told[-1].done, told[-1].total, told[-1].unit) == (size, size, "bytes")
    assert [event.done for event in told] == sorted(event.done for event in told)


@WAYS
def test_what_is_no_file_is_left_out_with_a_note(
    guest: Guest, tree: Path, tmp_path: Path, copy: Copy
) -> None:
    os.mkfifo(tree / "fifo")
    notes = [event for event in copy(guest, tree, tmp_path / "copy") if isinstance(event, Note)]
    assert [note.text for note in notes] == [f"left out `{tree}/fifo`: not a file, a directory or a link"]
    assert not (tmp_path / "copy" / "fifo").exists()


@WAYS
def test_a_link_that_is_named_is_followed(guest: Guest, tree: Path, tmp_path: Path, copy: Copy) -> None:
    copy(guest, tree / "inner" / "up", tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_text() == "hello\n"


@WAYS
@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("missing", "x", r"there is no `.*missing`"),
        ("tree/text", "no/x", r"there is no (directory )?`.*no(/x)?`"),
        ("tree/text", "no/", r"there is no directory `.*no/?`"),
        ("tree", "tree/text", r"is not( a directory, and the source is one)?$"),
    ],
)
def test_paths_that_do_not_fit(
    guest: Guest, tree: Path, tmp_path: Path, copy: Copy, source: str, destination: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        copy(guest, f"{tmp_path}/{source}", f"{tmp_path}/{destination}")
    assert exit_code_of(caught.value) == 2


@WAYS
def test_a_device_is_no_source(guest: Guest, tmp_path: Path, copy: Copy) -> None:
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        copy(guest, "/dev/null", tmp_path / "x")


def test_a_full_disk_in_the_guest(guest: Guest, tree: Path) -> None:
    with pytest.raises(GuestError, match="SFTP server failed on `/dev/full`") as caught:
        put(guest, tree / "text", "/dev/full")
    assert exit_code_of(caught.value) == 23
    assert "disk is full" in str(caught.value.hint)


def test_a_file_of_unknown_size_is_read_to_its_end(guest: Guest, tmp_path: Path) -> None:
    get(guest, "/proc/self/status", tmp_path / "status")
    assert (tmp_path / "status").read_text().startswith("Name:")


def test_setuid_does_not_come_out_of_a_guest(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("x")
    (tmp_path / "program").chmod(0o6755)
    get(guest, tmp_path / "program", tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o755


def test_nothing_is_written_through_a_link_on_this_computer(guest: Guest, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    into = tmp_path / "into"
    into.mkdir()
    (into / "inner").symlink_to(outside)
    (into / "text").symlink_to(outside / "file")
    with pytest.raises(HostError, match="inner` on this computer") as caught:
        get(guest, f"{tree}/.", into)
    assert "nothing is copied through links" in str(caught.value.hint)
    get(guest, tree / "text", into)
    assert (outside / "file").read_text() == "precious"
    assert (into / "text").read_text() == "hello\n"
    assert [path.name for path in outside.iterdir()] == ["file"]


def lying(entries: list[tuple[str, int]]) -> type[LocalFiles]:
    """An SFTP server that lists `entries` (name, mode) in the directory /lie, and serves them all."""

    def attributes(name: str, mode: int) -> SFTPAttributes:
        one = SFTPAttributes()
        one.filename, one.st_mode, one.st_size = name, mode, 0
        one.st_uid = one.st_gid = one.st_atime = one.st_mtime = 0
        return one

    class Liar(LocalFiles):
        def list_folder(self, path: str) -> list[SFTPAttributes] | int:
            return [attributes(name, mode) for name, mode in entries] if path == "/lie" else []

        def stat(self, path: str) -> SFTPAttributes | int:
            return attributes("lie", stat.S_IFDIR | 0o755)

        def readlink(self, path: str) -> str | int:
            return "/tmp"

        def open(self, path: str, flags: int, attr: SFTPAttributes) -> paramiko.SFTPHandle | int:
            return super().open("/proc/self/status", flags, attr)

    return Liar


def from_liar(entries: list[tuple[str, int]], into: Path) -> VmrunnerError:
    with local_guest() as (guest, sshd):
        sshd.sftp = lying(entries)
        restart(guest, sshd)
        with pytest.raises(VmrunnerError) as caught:
            get(guest, "/lie", into)
    return caught.value


def restart(guest: Guest, sshd: FakeSshd) -> None:
    """The server's kind of SFTP is settled when a connection begins."""
    assert sshd.sftp
    guest.connect(Deadline.after(10))


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/b", "nul\0", ""])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str, kind: int) -> None:
    error = from_liar([(name, kind | 0o755)], tmp_path / "into")
    assert isinstance(error, GuestError)
    assert error.message == f"the guest lists a file name that no file can have: {name!r}"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["into"]


def test_a_link_that_the_guest_just_sent_is_not_followed(tmp_path: Path) -> None:
    error = from_liar([("x", stat.S_IFLNK | 0o777), ("x", stat.S_IFDIR | 0o755)], tmp_path / "into")
    assert isinstance(error, HostError)
    assert (tmp_path / "into" / "x").is_symlink()


def test_a_tree_without_end_is_refused(tmp_path: Path) -> None:
    class Endless(lying([])):  # type: ignore[misc]  # made by a function
        def list_folder(self, path: str) -> list[SFTPAttributes] | int:
            one = SFTPAttributes()
            one.filename, one.st_mode, one.st_size = "d", stat.S_IFDIR | 0o755, 0
            one.st_uid = one.st_gid = one.st_atime = one.st_mtime = 0
            return [one]

    with local_guest() as (guest, sshd):
        sshd.sftp = Endless
        restart(guest, sshd)
        with pytest.raises(GuestError, match="more than 200 directories deep"):
            get(guest, "/lie", tmp_path / "into")


def test_a_guest_without_sftp(tmp_path: Path) -> None:
    with local_guest() as (guest, sshd):
        sshd.sftp = None
        guest.connect(Deadline.after(10))
        with pytest.raises(GuestError, match="does not offer SFTP") as caught:
            download(guest, "x", str(tmp_path), emit=silent, deadline=Deadline.after(5))
    assert "sftp-server" in str(caught.value.hint)


def test_a_connection_that_breaks_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(20_000_000))
    into = tmp_path / "into"
    into.mkdir()
    with local_guest() as (guest, sshd):

        def cut(event: Event) -> None:
            if isinstance(event, PhaseProgress):
                sshd.drop_connections()

        with pytest.raises(GuestLost, match="broke while files were copied"):
            download(guest, f"{tmp_path}/source", str(into), emit=cut, deadline=Deadline.after(10))
        guest.connect(Deadline.after(10))
        with pytest.raises(GuestLost):
            upload(guest, f"{tmp_path}/source", f"{tmp_path}/up", emit=cut, deadline=Deadline.after(10))
    assert list(into.iterdir()) == []


def test_a_machine_that_dies_says_how(tmp_path: Path) -> None:
    dead: list[bool] = []

    def alive() -> None:
        if dead:
            raise GuestPanicked("the guest's kernel panicked")

    class Silent(LocalFiles):
        def list_folder(self, path: str) -> list[SFTPAttributes] | int:
            dead.append(True)
            Deadline.after(0.8).pause(0.8)
            return []

    with local_guest(alive=alive) as (guest, sshd):
        sshd.sftp = Silent
        guest.connect(Deadline.after(10))
        with pytest.raises(GuestPanicked):
            get(guest, tmp_path, tmp_path / "copy")

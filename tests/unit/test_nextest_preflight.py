"""Whether a guest can run an archive."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import write_program
from nextest_archives import (
    EM_AARCH64,
    LOADER,
    TEST_BINARY,
    binaries_metadata,
    demo_members,
    elf_file,
    file_member,
    metadata_members,
    special_member,
    write_archive,
)

from vmrunner.errors import ArchiveError
from vmrunner.events import silent
from vmrunner.host.deadline import Deadline
from vmrunner.host.nix_store import HostStore
from vmrunner.nextest.abilities import GuestAbilities
from vmrunner.nextest.extract import ExtractedArchive, extract_archive
from vmrunner.nextest.needs import FileNeeds, read_needs
from vmrunner.nextest.preflight import StoreNeeds, check_archive

Member = tuple[tarfile.TarInfo, bytes]
GLIBC = "/nix/store/aaaa-glibc-2.42"
STORE_LOADER = f"{GLIBC}/lib/ld-linux-x86-64.so.2"
OPENSSL = "/nix/store/bbbb-openssl-3"


def extracted(directory: Path, members: list[Member]) -> ExtractedArchive:
    archive = write_archive(directory / "a.tar.zst", members)
    with extract_archive(archive, cache=directory, emit=silent, deadline=Deadline.after(60)) as result:
        return result


def with_test_binary(directory: Path, content: bytes, *more: Member) -> ExtractedArchive:
    test_binary = file_member(f"target/{TEST_BINARY}", content, 0o755)
    return extracted(directory, [*metadata_members(), test_binary, *more])


def check(
    archive: ExtractedArchive,
    glibc: str | None = "2.36",
    loaders: Sequence[str] = (LOADER,),
    *,
    image: str = "debian",
    libraries: Sequence[str] = ("libgcc_s.so.1", "libz.so.1"),
    store_paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    store: HostStore | None = None,
) -> StoreNeeds:
    guest = GuestAbilities(
        image=image,
        architecture="x86_64",
        glibc=glibc,
        interpreters=frozenset(loaders),
        libraries=frozenset(libraries),
        store_paths=frozenset(store_paths),
        environment=environment or {},
    )
    return check_archive(archive, guest=guest, store=store)


def refused(archive: ExtractedArchive, *arguments: Any, **abilities: Any) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        check(archive, *arguments, **abilities)
    assert caught.value.exit_code == 24
    assert caught.value.hint
    return caught.value


def host_store(directory: Path, *paths: str) -> HostStore:
    """A store with these files, given as absolute paths below /nix/store."""
    store = directory / "store"
    for path in paths:
        file = store / path.removeprefix("/nix/store/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return HostStore(store)


def test_an_archive_that_fits(tmp_path: Path) -> None:
    archive = extracted(tmp_path, demo_members())
    assert check(archive) == StoreNeeds()
    needs = read_needs(archive)
    assert needs.programs == (
        FileNeeds(TEST_BINARY, "x86_64", LOADER, "2.34"),
        FileNeeds("debug/demo", "x86_64", LOADER, "2.17"),
    )
    assert list(needs.libraries) == ["libstd-1.so"]


def test_programs_with_the_same_needs_are_kept_as_one(tmp_path: Path) -> None:
    same = elf_file(glibc=["2.34"])
    archive = with_test_binary(tmp_path, same, file_member("target/debug/demo", same, 0o755))
    assert [program.file for program in read_needs(archive).programs] == [TEST_BINARY]


def test_a_newer_glibc_than_the_guest_has(tmp_path: Path) -> None:
    error = refused(with_test_binary(tmp_path, elf_file(glibc=["2.39"])))
    assert error.message == f"`{TEST_BINARY}` needs glibc 2.39, but the guest has glibc 2.36"
    assert error.hint
    assert "newer suite" in error.hint
    assert "musl" in error.hint


def test_a_library_that_needs_a_newer_glibc(tmp_path: Path) -> None:
    library = file_member("target/debug/build/x/out/libx.so", elf_file(interpreter=None, glibc=["2.38"]))
    assert "libx.so" in refused(extracted(tmp_path, [*demo_members(), library])).message


def test_a_program_that_tests_start_counts_too(tmp_path: Path) -> None:
    members = [
        *metadata_members(),
        file_member(f"target/{TEST_BINARY}", elf_file(glibc=["2.17"])),
        file_member("target/debug/demo", elf_file(glibc=["2.40"])),
    ]
    assert "`debug/demo` needs glibc 2.40" in refused(extracted(tmp_path, members)).message


def test_versions_are_numbers(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(glibc=["2.9"]))
    check(archive, glibc="2.10")
    refused(archive, glibc="2.8")


def test_another_processor(tmp_path: Path) -> None:
    error = refused(with_test_binary(tmp_path, elf_file(machine=EM_AARCH64)))
    assert error.message == "the archive is for aarch64, but the guest is x86_64"
    assert error.details
    assert TEST_BINARY in error.details


def test_a_loader_that_the_guest_lacks(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(interpreter="/lib/ld-musl-x86_64.so.1"))
    error = refused(archive)
    assert error.message == (
        f"`{TEST_BINARY}` needs the dynamic loader /lib/ld-musl-x86_64.so.1, which the image `debian` does not have"
    )
    assert "nix-ld" in str(refused(archive, image="nixos").hint)


def test_static_programs_run_in_a_guest_without_glibc(tmp_path: Path) -> None:
    check(with_test_binary(tmp_path, elf_file(interpreter=None)), glibc=None, loaders=())


def test_a_guest_without_glibc_lacks_its_loader(tmp_path: Path) -> None:
    assert LOADER in refused(extracted(tmp_path, demo_members()), glibc=None, loaders=()).message


@pytest.mark.parametrize("content", [b"MZ a program for Windows", b"\xcf\xfa\xed\xfe for macOS", b""])
def test_a_test_binary_for_another_system(tmp_path: Path, content: bytes) -> None:
    error = refused(with_test_binary(tmp_path, content))
    assert "not a Linux program" in error.message
    assert "x86_64-unknown-linux-gnu" in error.message


def test_a_test_binary_that_is_missing(tmp_path: Path) -> None:
    assert "lacks its test binary" in refused(extracted(tmp_path, metadata_members())).message


def test_a_test_binary_behind_a_link_that_stays_is_fine(tmp_path: Path) -> None:
    members = [
        *metadata_members(),
        file_member("target/debug/deps/real", elf_file()),
        special_member(f"target/{TEST_BINARY}", tarfile.SYMTYPE, "real"),
    ]
    check(extracted(tmp_path, members))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd"])
def test_a_program_outside_the_archive_is_never_opened(tmp_path: Path, path: str) -> None:
    build_meta: dict[str, Any] = {"non-test-binaries": {"demo": [{"path": path}]}}
    members = metadata_members(binaries_metadata(**build_meta))
    members.append(file_member(f"target/{TEST_BINARY}", elf_file()))
    with pytest.raises(ArchiveError, match="outside its target directory"):
        read_needs(extracted(tmp_path, members))


def test_the_programs_are_read_once(tmp_path: Path) -> None:
    archive = extracted(tmp_path, demo_members())
    needs = read_needs(archive)
    (archive.target / TEST_BINARY).write_bytes(b"changed")
    assert read_needs(archive) == needs


def test_four_hundred_programs_take_no_time(tmp_path: Path) -> None:
    libraries = [
        file_member(f"target/debug/deps/lib{number}.so", elf_file(interpreter=None, glibc=["2.30"]))
        for number in range(400)
    ]
    check(extracted(tmp_path, [*demo_members(), *libraries]))


def test_a_library_that_the_image_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    archive = with_test_binary(tmp_path, elf_file(libraries=["libz.so.1", "libpq.so.5", "libc.so.6"]))
    error = refused(archive)
    assert error.message == (
        f"`{TEST_BINARY}` needs the library libpq.so.5, which the image `debian` does not have"
    )
    assert "`packages:`" in str(error.hint)
    assert "`programs.nix-ld.libraries`" in str(refused(archive, image="nixos").hint)
    assert "use an image" in str(refused(archive, image="mine").hint)
    check(archive, libraries=["libz.so.1", "libpq.so.5"])


def test_the_package_is_named_where_this_host_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = """case "$2" in
*/libpq.so.5) echo 'libpq5:amd64: /usr/lib/x86_64-linux-gnu/libpq.so.5' ;;
*/libssl.so.3) echo 'libssl3, libssl3-fips: /usr/lib/libssl.so.3' ;;
*) echo "dpkg-query: no path found matching pattern $2" >&2; exit 1 ;;
esac"""
    write_program(tmp_path / "dpkg-query", answers)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    libraries = ["libpq.so.5", "libssl.so.3", "libown.so.1"]
    error = refused(with_test_binary(tmp_path, elf_file(libraries=libraries)))
    assert "libpq.so.5 (and 2 more)" in error.message
    assert "`packages: [libpq5, libssl3]`" in str(error.hint)
    assert f"libown.so.1: needed by {TEST_BINARY}" in str(error.details)


def test_a_library_of_the_archive_is_found_and_its_own_needs_count(tmp_path: Path) -> None:
    program = elf_file(libraries=["libmine.so.2"])
    own = file_member(
        "target/debug/build/x/out/libmine.so.2", elf_file(interpreter=None, libraries=["libdeep.so.1"])
    )
    error = refused(with_test_binary(tmp_path, program, own))
    assert "`debug/build/x/out/libmine.so.2` needs the library libdeep.so.1" in error.message
    check(with_test_binary(tmp_path, program, own), libraries=["libdeep.so.1"])


def test_what_no_program_loads_need_not_be_complete(tmp_path: Path) -> None:
    plugin = file_member("target/debug/libplugin.so", elf_file(interpreter=None, libraries=["libgtk-4.so.1"]))
    check(extracted(tmp_path, [*demo_members(), plugin]))


def test_rusts_own_libraries_come_with_the_archive(tmp_path: Path) -> None:
    program = elf_file(libraries=["libstd-0a1b.so"])
    error = refused(with_test_binary(tmp_path, program))
    assert "0.9.72" in str(error.hint)
    library = file_member("target/nextest/libdirs/host/libstd-0a1b.so", elf_file(interpreter=None))
    check(with_test_binary(tmp_path, program, library))


@pytest.mark.parametrize("library", ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"])
def test_a_guest_with_glibc_has_all_of_it(tmp_path: Path, library: str) -> None:
    check(with_test_binary(tmp_path, elf_file(libraries=[library])))


def test_an_image_that_does_not_say_what_it_has_is_believed(tmp_path: Path) -> None:
    check(with_test_binary(tmp_path, elf_file(libraries=["libpq.so.5"])), libraries=())


def test_who_says_where_libraries_are_is_believed(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(libraries=["libpq.so.5"]))
    check(archive, environment={"LD_LIBRARY_PATH": "/opt/pq/lib"})


@pytest.mark.parametrize(
    ("run_path", "may_be_there"),
    [
        ("/opt/pq/lib", True),
        ("/build/ws/vendor", True),
        ("$ORIGIN/../../../vendor", True),
        ("${ORIGIN}/../../../vendor", True),
        ("$ORIGIN", False),
        ("/build/ws/target/debug/deps", False),
        ("/usr/lib/x86_64-linux-gnu", False),
        ("/home/somebody/lib", False),
    ],
)
def test_a_run_path_counts_where_the_guest_may_have_it(
    tmp_path: Path, run_path: str, may_be_there: bool
) -> None:
    archive = with_test_binary(tmp_path, elf_file(libraries=["libpq.so.5"], run_path=run_path))
    if may_be_there:
        check(archive)
    else:
        refused(archive)


def test_a_loader_in_the_store_of_this_host(tmp_path: Path) -> None:
    """Its glibc is its own, and so are the libraries beside it; those of the guest are not looked at."""
    program = elf_file(
        interpreter=STORE_LOADER,
        glibc=["2.42"],
        libraries=["libc.so.6", "libssl.so.3"],
        run_path=f"{OPENSSL}/lib",
    )
    archive = with_test_binary(tmp_path, program)
    store = host_store(tmp_path, STORE_LOADER, f"{GLIBC}/lib/libc.so.6", f"{OPENSSL}/lib/libssl.so.3")
    assert check(archive, store=store).from_host == {GLIBC: TEST_BINARY, OPENSSL: TEST_BINARY}
    (store.directory / "bbbb-openssl-3/lib/libssl.so.3").unlink()
    assert "libssl.so.3" in refused(archive, store=store, libraries=["libssl.so.3"]).message


def test_a_store_path_of_the_guest_is_not_needed_from_the_host(tmp_path: Path) -> None:
    program = elf_file(
        interpreter=STORE_LOADER, libraries=["libc.so.6", "libssl.so.3"], run_path=f"{OPENSSL}/lib"
    )
    archive = with_test_binary(tmp_path, program)
    store = host_store(tmp_path, f"{OPENSSL}/lib/libssl.so.3")
    assert check(archive, store=store, store_paths=[GLIBC]).from_host == {OPENSSL: TEST_BINARY}
    assert check(archive, store_paths=[GLIBC, OPENSSL]).from_host == {}


def test_a_store_path_that_is_nowhere(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(interpreter=STORE_LOADER, libraries=["libc.so.6"]))
    error = refused(archive)
    assert error.message == (
        f"`{TEST_BINARY}` needs {GLIBC}, which is neither in the image `debian` nor on this host, which has no Nix store"
    )
    assert "nix-store --import" in str(error.hint)
    error = refused(archive, store=host_store(tmp_path, f"{OPENSSL}/lib/libssl.so.3"))
    assert error.message.endswith("nor on this host")
    assert f"nix-store --realise {GLIBC}" in str(error.hint)


def test_a_run_path_into_the_store_that_is_not_needed_may_be_nowhere(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(libraries=["libz.so.1"], run_path=f"{OPENSSL}/lib"))
    assert check(archive).from_host == {}


def test_a_library_of_the_store_for_the_guests_own_loader(tmp_path: Path) -> None:
    archive = with_test_binary(tmp_path, elf_file(libraries=["libssl.so.3"], run_path=f"{OPENSSL}/lib"))
    store = host_store(tmp_path, f"{OPENSSL}/lib/libssl.so.3")
    assert check(archive, store=store).from_host == {OPENSSL: TEST_BINARY}
    assert OPENSSL in refused(archive).message


def test_a_library_named_by_its_path_in_the_store(tmp_path: Path) -> None:
    path = f"{OPENSSL}/lib/libssl.so.3"
    archive = with_test_binary(tmp_path, elf_file(libraries=[path]))
    assert check(archive, store=host_store(tmp_path, path)).from_host == {OPENSSL: TEST_BINARY}
    assert OPENSSL in refused(archive).message

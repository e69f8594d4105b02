"""Files that other processes may meet: written atomically, locked where two writers can collide."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vmrunner.errors import RunTimeout
from vmrunner.host.deadline import Deadline

_LOCK_POLL_SECONDS = 0.1


def write_atomically(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Write `path` so that a reader sees the old content or the new, never a part: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{_writer()}")
    payload = data.encode() if isinstance(data, str) else data
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def directory_made_atomically(target: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `target` that becomes `target` when the block ends well.

    It is removed when the block fails. Where `target` appeared meanwhile, that one stays and ours is removed.
    """
    temporary = target.with_name(f".tmp-{target.name}-{_writer()}")
    remove_tree(temporary)
    temporary.mkdir(mode=0o700, parents=True)
    try:
        yield temporary
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        remove_tree(temporary)


def sync_files(directory: Path) -> None:
    """Have the files directly in `directory` on the disk: what is written next must not survive a crash without them."""
    for path in directory.iterdir():
        if path.is_file():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _writer() -> str:
    """A name no other living writer has: this process's and thread's."""
    return f"{os.getpid()}-{threading.get_native_id()}"


def remove_tree(path: Path) -> None:
    """Remove a directory tree if there is one, also below directories without write permission."""

    def make_writable_and_retry(_function: Callable[..., object], name: str, _error: object) -> None:
        parent = Path(name).parent
        parent.chmod(0o700)
        if Path(name).is_dir() and not Path(name).is_symlink():
            Path(name).chmod(0o700)
        if Path(name).is_dir() and not Path(name).is_symlink():
            shutil.rmtree(name)
        else:
            Path(name).unlink(missing_ok=True)

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=make_writable_and_retry)


@contextmanager
def locked(
    path: Path, *, deadline: Deadline, shared: bool = False, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a flock(2) on `path`, exclusive or `shared`; the kernel drops it when this process dies.

    `on_wait` is called once where another process holds it; it may remove the file, which is then made anew. Raises
    RunTimeout when the deadline passes first.
    """
    waited = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not try_lock(fd, shared=shared):
                if not waited and on_wait:
                    on_wait()
                waited = True
                if not deadline.pause(_LOCK_POLL_SECONDS):
                    raise RunTimeout(f"another process held {path} until the time was up")
            if _is_at(path, fd):
                yield
                return
        finally:
            os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take a flock(2) on an open file without waiting; whether that went well."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

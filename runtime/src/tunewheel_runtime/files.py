"""Replaces a file as one step, by one process at a time, and detects that a file has changed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator
from pathlib import Path


def mark_of(path: Path) -> tuple[int, ...]:
    """Return a value that changes when the file or its permissions change. Links are followed, because
    Kubernetes mounts secrets as links."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Generator[None]:
    """Hold a lock on ``folder``, for which other processes wait. Raises OSError if it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file's content by ``content``. The file keeps its mode and owner; only its owner can read a
    new file.

    A reader, or a restart after a power cut, sees either the whole old content or the whole new one. Several
    processes may replace the file at the same time. Raises OSError.
    """
    found = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            if found is not None:
                os.fchmod(descriptor, found.st_mode & 0o777)
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

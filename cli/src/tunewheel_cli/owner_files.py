"""Writes files that only their owner can read: atomically, and by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

OWNER_FILE = 0o600
OWNER_FOLDER = 0o700


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a lock on ``folder``, for which other processes wait. Raises OSError if it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Replace the file's content by ``text``. The file keeps its mode and owner; only its owner can read a
    new file.

    A reader, or a restart after a power cut, sees either the whole old text or the whole new one.

    Raises:
        OSError
    """
    found = path.stat() if path.exists() else None
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if found is not None:
                os.fchmod(descriptor, found.st_mode & 0o777)
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

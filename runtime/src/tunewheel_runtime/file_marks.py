"""Whether a file changed since it was read."""

from __future__ import annotations

from pathlib import Path


def mark_of(path: Path) -> tuple[int, ...]:
    """Return what changes when the file does, or who may read it, through links too, as Kubernetes mounts a
    secret."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

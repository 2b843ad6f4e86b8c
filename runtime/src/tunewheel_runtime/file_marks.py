"""Detects that a file changed since it was read."""

from __future__ import annotations

from pathlib import Path


def mark_of(path: Path) -> tuple[int, ...]:
    """Return a value that changes when the file or its permissions change. Links are followed, because
    Kubernetes mounts secrets as links."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

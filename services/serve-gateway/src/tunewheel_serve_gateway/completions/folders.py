"""One spool folder per gateway process, held by a file lock.

When a process ends, its lock is released. Another process then takes the folder over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Collection
from pathlib import Path

LOCK = "lock"
UNNAMED = ".new"


class Folders:
    """The folders below ``directory`` that this process holds, each by one locked file descriptor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[Path, int] = {}
        self.own: Path | None = None
        """The folder that this process writes to."""

    def adopt(self, failed: list[OSError]) -> list[Path]:
        """Lock the folders of processes that have ended; return these folders. Errors of folders that cannot
        be looked at are added to ``failed``; the others are locked all the same."""
        held: list[Path] = []
        try:
            found = [self._directory / name for name in os.listdir(self._directory)]
        except OSError as error:
            failed.append(error)
            return []
        for path in found:
            try:
                if path not in self._held and path.suffix != UNNAMED and self._hold(path):
                    held.append(path)
            except OSError as error:
                failed.append(error)
        return held

    def begin(self) -> None:
        """Create this process's own folder. It is locked under a temporary name and then renamed, so that no
        other process can take it over in between. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._directory / uuid.uuid4().hex
        unnamed = folder.with_suffix(UNNAMED)
        unnamed.mkdir(mode=0o700)
        descriptor = os.open(unnamed / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.rename(unnamed, folder)
        except OSError:
            os.close(descriptor)
            (unnamed / LOCK).unlink(missing_ok=True)
            unnamed.rmdir()
            raise
        self.own = folder
        self._held[folder] = descriptor

    def let_go(self, *, keep: Collection[Path]) -> None:
        """Unlock the held folders that are not in ``keep``, except this process's own, and delete those that
        are empty."""
        for folder in [folder for folder in self._held if folder != self.own and folder not in keep]:
            descriptor = self._held.pop(folder)
            # A folder without its lock is never taken over, so the lock stays where another file does.
            with contextlib.suppress(OSError):
                if os.listdir(folder) == [LOCK]:
                    (folder / LOCK).unlink()
                    folder.rmdir()
            os.close(descriptor)

    def close(self, *, keep: Collection[Path]) -> None:
        """Unlock all folders. Those in ``keep`` stay on the disk for another process; the rest are
        deleted."""
        self.own = None
        self.let_go(keep=keep)
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _hold(self, folder: Path) -> bool:
        """Lock ``folder``; return False where its process is running or another process took it over."""
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                self._held[folder] = descriptor
        except BlockingIOError:
            pass
        finally:
            if folder not in self._held:
                os.close(descriptor)
        return folder in self._held

"""Kafka's classes as Java loaded and linked them before: half the processor time of a broker's start.

Java writes them when a broker ends whose start found none (JEP 483 and 514, Java 25: an ahead-of-time cache),
which takes it some seconds, once per machine. Older versions of Java are told to ignore the options.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

FOLDER = "kafka-aot"
_TRIED = ("-XX:+IgnoreUnrecognizedVMOptions", "-XX:+VerifySharedSpaces")
"""The second: a damaged file is left aside, which costs a tenth of a second to see."""


class StartupCache:
    """The cache for ``java`` and ``jars`` in the folder ``cache``; written below ``scratch`` first."""

    def __init__(self, cache: Path, java: Path, jars: Sequence[Path], *, scratch: Path) -> None:
        about = [str(java.resolve()), str(java.stat().st_mtime_ns), *map(str, jars)]
        name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
        self.file = cache / FOLDER / f"{name}.aot"
        self._written = scratch / "startup.aot"

    def options(self, *, write: bool = False) -> tuple[str, ...]:
        """Return Java's options: to use the cache, or, with ``write``, to write it where there is none."""
        if self.file.exists():
            return *_TRIED, f"-XX:AOTCache={self.file}"
        if not write:
            return ()
        self._written.unlink(missing_ok=True)
        return *_TRIED, f"-XX:AOTCacheOutput={self._written}"

    def keep(self) -> None:
        """Put what a broker that ended by itself has written in its place; a full disk is no error."""
        if not self._written.exists():
            return
        beside = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._written, beside)
            os.replace(beside, self.file)
        except OSError:
            beside.unlink(missing_ok=True)

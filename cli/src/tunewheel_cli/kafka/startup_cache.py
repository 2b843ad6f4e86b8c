"""A cache of Kafka's loaded and linked classes, which halves the processor time of a broker's start.

It is Java's ahead-of-time cache (JEP 483 and 514, Java 25). If a start finds no cache, Java writes one when
that broker ends, which takes some seconds once per machine. Older versions of Java ignore the options.
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
    """The cache for ``java`` and ``jars`` in the folder ``cache``. It is first written below ``scratch``."""

    def __init__(self, cache: Path, java: Path, jars: Sequence[Path], *, scratch: Path) -> None:
        about = [str(java.resolve()), str(java.stat().st_mtime_ns), *map(str, jars)]
        name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
        self.file = cache / FOLDER / f"{name}.aot"
        self._written = scratch / "startup.aot"

    def options(self, *, write: bool = False) -> tuple[str, ...]:
        """Return Java's options to use the cache, or, with ``write``, to write it if there is none."""
        if self.file.exists():
            return *_TRIED, f"-XX:AOTCache={self.file}"
        if not write:
            return ()
        self._written.unlink(missing_ok=True)
        return *_TRIED, f"-XX:AOTCacheOutput={self._written}"

    def keep(self) -> None:
        """Move a cache that an ended broker has written to its place. A full disk is no error."""
        if not self._written.exists():
            return
        beside = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._written, beside)
            os.replace(beside, self.file)
        except OSError:
            beside.unlink(missing_ok=True)

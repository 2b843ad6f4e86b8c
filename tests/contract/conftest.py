"""Reading requirement locks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Pins = dict[tuple[str, str], set[str]]
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


def _read_lock(path: Path) -> Pins:
    """Return hashes by (name, pinned version)."""
    pins: Pins = {}
    for entry in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        requirement = Requirement(entry.split(" --hash", 1)[0].strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path}: {requirement} is not pinned"
        key = (canonicalize_name(requirement.name), specifier.version)
        pins.setdefault(key, set()).update(_HASH.findall(entry))
    return pins


@pytest.fixture(scope="session")
def read_lock() -> Callable[[Path], Pins]:
    return _read_lock

"""Looks into folders in which other processes write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield each file below ``folder`` with its bytes.

    What is renamed or deleted meanwhile is left out: ``Path.rglob`` and whoever reads what it found would
    raise FileNotFoundError.
    """
    for place, _, names in os.walk(folder):  # which passes over folders that are gone
        for path in (Path(place, name) for name in names):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            yield path, data

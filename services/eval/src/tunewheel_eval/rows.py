"""The file to which a contestant's rows are appended. It survives a killed worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunewheel_eval.measurement import Header, Measurement, Row, read_measurement


class RowFile:
    """The rows of one contestant on disk. Rows are appended batch by batch."""

    def __init__(self, path: Path, header: Header) -> None:
        """Continue the file of an earlier worker at ``path``. Rows with another header are discarded."""
        self._path = path
        found = read_existing(path, header) or Measurement(header=header)
        self.rows: dict[str, Row] = dict(found.rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Rewrite the whole file, so that no row is appended to half a line of a killed worker.
        scratch = path.with_suffix(".tmp")
        scratch.write_text(found.to_lines(), "utf-8")
        os.replace(scratch, path)

    def add(self, rows: Sequence[Row]) -> None:
        """Append ``rows`` and flush them to the operating system."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{row.model_dump_json()}\n" for row in rows))
        self.rows.update({row.key: row for row in rows})

    def holds(self, keys: Sequence[str]) -> bool:
        return all(key in self.rows for key in keys)


def read_existing(path: Path, header: Header) -> Measurement | None:
    """Read ``path``; None: it is missing or has another header."""
    try:
        found = read_measurement(path.read_text("utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    return found if found is not None and found.matches(header) else None

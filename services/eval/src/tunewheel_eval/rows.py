"""The file that a contestant's rows are appended to: what survives a worker that is killed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunewheel_eval.measurement import Header, Measurement, Row, read_measurement


class RowFile:
    """Rows of one contestant on disk, appended a batch at a time."""

    def __init__(self, path: Path, header: Header) -> None:
        """Take up ``path`` where an earlier worker left it; rows of another header are discarded."""
        self._path = path
        found = read_existing(path, header) or Measurement(header=header)
        self.rows: dict[str, Row] = dict(found.rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Rewritten whole, so that half a line left by a kill does not swallow the next.
        scratch = path.with_suffix(".tmp")
        scratch.write_text(found.to_lines(), "utf-8")
        os.replace(scratch, path)

    def add(self, rows: Sequence[Row]) -> None:
        """Append ``rows`` and hand them to the operating system before returning."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{row.model_dump_json()}\n" for row in rows))
        self.rows.update({row.key: row for row in rows})

    def holds(self, keys: Sequence[str]) -> bool:
        return all(key in self.rows for key in keys)


def read_existing(path: Path, header: Header) -> Measurement | None:
    """Read ``path`` if it is there and was written under an equal header."""
    try:
        found = read_measurement(path.read_text("utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    return found if found is not None and found.matches(header) else None

"""The rows of the record table by which a build becomes due, kept in memory from one look to the next.

Nothing can be learned from most rows of a help desk: they are tickets without an answer. Of those only the
last one of each partition is kept, because it says how far the project's records go. So memory grows with the
answers, and not with the tickets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl
from tunewheel_contracts.events.data import RecordKind

from tunewheel_curate.records.table import RecordTable, ends_of

DOCUMENT = pl.col("kind") == RecordKind.DOCUMENT.value
RATED_UP = (pl.col("rating") == "up").fill_null(False)
MAY_TEACH = pl.col("usable") | DOCUMENT | RATED_UP
"""Holds for the rows of ``RecordTable.arrivals`` that become examples, at least in some projects."""
MOST_CHUNKS = 64
"""Each look that finds new rows adds a chunk, which takes more memory than its few rows. After so many the
rows are copied into one."""


class Arrived(NamedTuple):
    """The records of one project."""

    rows: pl.DataFrame
    """The rows of ``RecordTable.arrivals`` that may teach, and of the others the last one of each
    partition."""
    written: Mapping[str, int]
    """By partition, the offset after the last record that is no rating."""


class Arrivals:
    """Reads the new rows of ``table`` at each look. Not to be used from several threads at once."""

    def __init__(self, table: RecordTable) -> None:
        self._table = table
        self._forget()

    def _forget(self) -> None:
        self._teaching: dict[str, pl.DataFrame] = {}
        self._others: dict[str, pl.DataFrame] = {}
        self._written: dict[str, dict[str, int]] = {}
        self._ends: dict[str, int] = {}
        """By partition, the offset after the last row that was read."""
        self._read = 0

    def look(self) -> dict[str, Arrived]:
        """Return by project what the table holds now. Raises TransientError."""
        new = self._table.later_arrivals(self._ends, known=self._read)
        if new is None:  # a row that was read is gone: somebody was erased
            self._forget()
            new = self._table.arrivals()
        for (project,), rows in new.partition_by("project", as_dict=True, include_key=False).items():
            self._add(project, rows)
        self._ends |= ends_of(new)
        self._read += new.height
        return {
            project: Arrived(pl.concat([rows, self._others[project]]), self._written[project])
            for project, rows in self._teaching.items()
        }

    def _add(self, project: str, new: pl.DataFrame) -> None:
        teaching, more = self._teaching.get(project, new.clear()), new.filter(MAY_TEACH)
        if not more.is_empty():
            teaching = pl.concat([teaching, more])
        self._teaching[project] = teaching.rechunk() if teaching.n_chunks() > MOST_CHUNKS else teaching
        others = pl.concat([self._others.get(project, new.clear()), new.filter(~MAY_TEACH)])
        is_last = pl.col("offset") == pl.col("offset").max().over("partition")
        self._others[project] = others.filter(is_last).rechunk()
        written = ends_of(new.filter(pl.col("rating").is_null()))
        self._written[project] = self._written.get(project, {}) | written

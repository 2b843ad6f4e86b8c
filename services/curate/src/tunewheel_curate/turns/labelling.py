"""How many trusted examples lie near what each alarm is about. A row of the table is looked at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.monitoring import LabelsRequested

from tunewheel_curate.records.erasures import erased
from tunewheel_curate.records.table import SUBJECT_COLUMNS, RecordTable
from tunewheel_curate.turns.near_cluster import NEAR_COLUMNS, Embed, NearCluster

COLUMNS = tuple(dict.fromkeys((*NEAR_COLUMNS, *SUBJECT_COLUMNS)))
"""What is read of a row: what is counted by, and what tells whether it is erased."""


def static_embed() -> Embed:
    """Return the monitor's own embedding, which loads on first use."""
    from tunewheel_embedding.static import StaticEmbedder

    return StaticEmbedder().embed


class LabelCount:
    """Counts in the record table, and remembers what it has counted. Safe to use from several threads."""

    def __init__(
        self,
        table: RecordTable,
        erasures: Callable[[str], Collection[Erasure]],
        *,
        embed: Embed | None = None,
    ) -> None:
        """``erasures`` are those of a project: each has all be counted anew, without the rows that it takes,
        which may still lie in the table. So has a request for labels that names more prompts."""
        self._table = table
        self._erasures = erasures
        self._embed = embed or static_embed()
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, str], NearCluster] = {}
        self._erased: dict[str, int] = {}
        self._looked: dict[tuple[str, str], int | None] = {}
        """By project and alarm: the table's version that was counted."""

    def count(self, project: str, wanted: Mapping[str, LabelsRequested]) -> dict[str, int]:
        """Return by alarm how many questions near its cluster an expert has answered.

        Raises:
            TransientError: the store is away.
        """
        with self._lock:
            self._forget(project, wanted)
            version = self._table.version()
            return {alarm: self._trusted((project, alarm), asked, version) for alarm, asked in wanted.items()}

    def _forget(self, project: str, wanted: Mapping[str, LabelsRequested]) -> None:
        erasures = len(self._erasures(project))
        erased = self._erased.get(project) != erasures
        self._erased[project] = erasures
        for key, near in list(self._clusters.items()):
            if key[0] == project and (erased or near.asked != wanted.get(key[1])):
                del self._clusters[key], self._looked[key]

    def _trusted(self, key: tuple[str, str], asked: LabelsRequested, version: int | None) -> int:
        if key not in self._clusters:
            self._clusters[key], self._looked[key] = NearCluster(asked, self._embed), None
        near = self._clusters[key]
        if version != self._looked[key]:
            rows = self._table.newer(key[0], near.reached, COLUMNS)
            near.add(rows.filter(~erased(self._erasures(key[0])).fill_null(False)).select(NEAR_COLUMNS))
            self._looked[key] = version
        return near.count().trusted

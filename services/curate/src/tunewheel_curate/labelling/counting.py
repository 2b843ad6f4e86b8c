"""Counts the trusted examples near each alarm's cluster. Each row of the table is read once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_turns.state import Labels

from tunewheel_curate.labelling.near_cluster import NEAR_COLUMNS, Embed, NearCluster
from tunewheel_curate.records.selection import erased
from tunewheel_curate.records.table import SUBJECT_COLUMNS, RecordTable

COLUMNS = tuple(dict.fromkeys((*NEAR_COLUMNS, *SUBJECT_COLUMNS)))
"""The columns that are read: those for counting, and those that say whether a row is erased."""


def static_embed() -> Embed:
    """Return the embedding that the monitor uses. It loads on first use."""
    from tunewheel_embedding.static import StaticEmbedder

    return StaticEmbedder().embed


class LabelCount:
    """Counts examples in the record table and keeps the counts. Safe to use from several threads."""

    def __init__(
        self,
        table: RecordTable,
        erasures: Callable[[str], Collection[Erasure]],
        *,
        embed: Embed | None = None,
    ) -> None:
        """``erasures`` returns the erasures of a project. Erased rows may still be in the table, so every new
        erasure makes the project be counted again without them. A changed request for labels is counted again
        too."""
        self._table = table
        self._erasures = erasures
        self._embed = embed or static_embed()
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, str], NearCluster] = {}
        self._erased: dict[str, int] = {}
        self._looked: dict[tuple[str, str], int | None] = {}
        """By project and alarm: the table's version at the last count."""

    def count(self, spec: ProjectSpec, wanted: Mapping[str, LabelsRequested]) -> dict[str, Labels]:
        """Return, by alarm, the answers that experts gave to questions near its cluster.

        Raises:
            TransientError: the store is away.
        """
        project = spec.project
        with self._lock:
            self._forget(project, wanted)
            version = self._table.version()
            return {
                alarm: self._labels((project, alarm), asked, version, spec.task)
                for alarm, asked in wanted.items()
            }

    def _forget(self, project: str, wanted: Mapping[str, LabelsRequested]) -> None:
        erasures = len(self._erasures(project))
        erased = self._erased.get(project) != erasures
        self._erased[project] = erasures
        for key, near in list(self._clusters.items()):
            if key[0] == project and (erased or near.asked != wanted.get(key[1])):
                del self._clusters[key], self._looked[key]

    def _labels(
        self, key: tuple[str, str], asked: LabelsRequested, version: int | None, task: TaskSpec
    ) -> Labels:
        if key not in self._clusters:
            self._clusters[key], self._looked[key] = NearCluster(asked, self._embed, task), None
        near = self._clusters[key]
        if version != self._looked[key]:
            rows = self._table.newer(key[0], near.reached, COLUMNS)
            near.add(rows.filter(~erased(self._erasures(key[0])).fill_null(False)).select(NEAR_COLUMNS))
            self._looked[key] = version
        return near.labels()

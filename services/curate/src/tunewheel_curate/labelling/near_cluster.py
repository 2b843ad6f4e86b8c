"""Counts the answers near a cluster of questions that drifted.

Distances are measured as in the monitor: the last question of a conversation becomes a static embedding of
unit length, and is compared with the cluster's centre by cosine distance. Each row is embedded once, so a
count costs only the rows since the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import structlog
from tunewheel_contracts.events.turns import LabelCluster, LabelsRequested
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST, OUT_OF_SCOPE
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.principal import Trust
from tunewheel_embedding.static import Vectors, unit_length
from tunewheel_outputs.labels import label_of
from tunewheel_turns.state import Labels

from tunewheel_curate.examples.formatting import conversation
from tunewheel_curate.records.selection import is_taught

OUTSIDE = f'"{OUT_OF_SCOPE}":"true"'
"""The mark of an answer that says "out of scope", as it appears in the canonical JSON of its attributes."""
log = structlog.get_logger(__name__)
LONGEST_TEXT = 4_000
"""Only so many characters of a question are embedded, as in the monitor."""
NEAR_COLUMNS = (
    "record_id", "kind", "source_id", "title", "input", "output", "history", "trust", "attributes",
    "published_at", "partition", "offset",
)  # fmt: skip
"""The columns of the record table that counting needs."""
ENOUGH = 5
"""How many answers a topic needs: fewer teach no class, and more teach little about this one."""
TOPIC = 3
"""A cluster with so many prompts is a topic. Smaller ones may be odd wordings of anything."""
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class NearCount:
    """The numbers of distinct answered questions near a cluster."""

    trusted: int
    """Questions with an answer that an expert validated (``validated_by``)."""
    taught: int
    """Questions that only a teacher answered."""


@dataclass(frozen=True, slots=True)
class _Answer:
    question: str
    trusted: bool
    cluster: str | None = None
    label: str | None = None
    out_of_scope: bool = False


class NearCluster:
    """Counts, for one request for labels, the answers near its cluster.

    Answers of experts and of a teacher count. Tickets that nobody validated, users' corrections and ratings,
    and answers of the project's own model do not.
    """

    def __init__(self, asked: LabelsRequested, embed: Embed, task: TaskSpec | None = None) -> None:
        """``embed`` works as ``StaticEmbedder.embed``: it returns (texts, dimensions), not normalised.
        ``task`` says what the label of an answer is."""
        self._task = task
        self._cluster_of = {name: one.cluster_id for one in asked.clusters for name in one.completion_ids}
        self._labels: dict[tuple[str, str], str] = {}
        """By source: the label of every expert's answer, near or not."""
        self._centre = unit_length(np.asarray(asked.centroid, dtype=np.float64).reshape(1, -1))[0]
        self._radius = asked.radius
        self.asked = asked
        self._named = frozenset(asked.completion_ids)
        self._mark = f'"{LABEL_REQUEST}":"{asked.request_id}"'
        """The request's id as it appears in the canonical JSON of an answer's attributes."""
        self._embed = embed
        self._near: dict[tuple[str, str], _Answer] = {}
        self._reached: dict[str, int] = {}

    @property
    def reached(self) -> dict[str, int]:
        """By partition of ``record.ingested``, the offset after the last row that was counted."""
        return dict(self._reached)

    def count(self) -> NearCount:
        answers = [one for one in self._near.values() if not one.out_of_scope]
        trusted = {one.question for one in answers if one.trusted}
        taught = {one.question for one in answers if not one.trusted}
        return NearCount(len(trusted), len(taught - trusted))

    def labels(self) -> Labels:
        """Return the experts' answers, by cluster too. A topic is settled once it has ``ENOUGH`` answers, or
        its label has: a label that other records teach needs few. It is also settled if most say that it is
        out of scope, or all of its prompts are done."""
        experts = {name: one for (_, name), one in self._near.items() if one.trusted}
        outside = sum(one.out_of_scope for name, one in experts.items() if name in self._named)
        by_label = Counter(self._labels.values())
        lacking = {
            one.cluster_id: _lacking(one, experts, by_label)
            for one in self.asked.clusters
            if len(one.completion_ids) >= TOPIC
        }
        return Labels(self.count().trusted, lacking, 1.0 - outside / max(1, len(self._named)))

    def add(self, rows: pl.DataFrame) -> NearCount:
        """Count further ``rows`` (``NEAR_COLUMNS``) of the project; rows before ``reached`` are skipped. The
        newest record of a source counts. A teacher's answer never replaces an expert's."""
        reached = (
            pl.col("partition")
            .cast(pl.String)
            .replace_strict(self._reached, default=0, return_dtype=pl.Int64)
        )
        new = rows.filter(pl.col("offset") >= reached).sort("published_at", "record_id")
        for partition, last in new.group_by("partition").agg(pl.col("offset").max()).iter_rows():
            self._reached[str(partition)] = last + 1
        expert = pl.col("trust") == Trust.EXPERT.value
        out_of_scope = pl.col("attributes").fill_null("").str.contains(OUTSIDE, literal=True)
        answered = (pl.col("output").is_not_null() | out_of_scope) & (pl.col("kind") != "document")
        answers = new.filter(answered & (expert | is_taught()))
        found = list(answers.iter_rows(named=True))
        questions = [_question(row) for row in found]
        for row, question, near in zip(found, questions, self._are_near(found, questions), strict=True):
            self._take(row, question, near=near)
        return self.count()

    def clear(self) -> None:
        """Reset the count, for use after an erasure. ``add`` then needs all rows again."""
        self._near.clear()
        self._labels.clear()
        self._reached.clear()

    def _take(self, row: dict[str, Any], question: str, *, near: bool) -> None:
        source, trusted = (row["kind"], row["source_id"]), row["trust"] == Trust.EXPERT.value
        earlier = self._near.get(source)
        if earlier is not None and earlier.trusted and not trusted:
            return
        self._near.pop(source, None)
        self._labels.pop(source, None)
        label = label_of(row["output"], self._task) if self._task and row["output"] is not None else None
        if label is not None and trusted:
            self._labels[source] = label
        if near:
            words, cluster = " ".join(question.casefold().split()), self._cluster_of.get(row["source_id"])
            self._near[source] = _Answer(words, trusted, cluster, label, row["output"] is None)

    def _are_near(self, rows: Sequence[dict[str, Any]], questions: Sequence[str]) -> Iterable[bool]:
        """Return for each row whether it is near the cluster.

        An answer to a prompt of the request, or one that names the request, counts at any distance: the
        radius covers only nine in ten of a cluster's own questions, and some requests have no cluster.
        """
        if not questions:
            return []
        if not self._centre.size:
            return [self._answers_it(row) for row in rows]
        units = unit_length(self._embed([question[:LONGEST_TEXT] for question in questions]))
        if units.shape[1] != self._centre.size:
            log.error(
                "centroid_unusable", request_id=self.asked.request_id, length=self._centre.size,
                expected=units.shape[1],
            )  # fmt: skip
            self._centre = self._centre[:0]
            return [self._answers_it(row) for row in rows]
        distances = 1.0 - units @ self._centre
        return [
            self._answers_it(row) or bool(distance <= self._radius)
            for row, distance in zip(rows, distances, strict=True)
        ]

    def _answers_it(self, row: dict[str, Any]) -> bool:
        return row["source_id"] in self._named or self._mark in (row["attributes"] or "")


def _lacking(cluster: LabelCluster, experts: Mapping[str, _Answer], by_label: Mapping[str, int]) -> int:
    """Return how many answers a topic needs yet."""
    done = [experts[name] for name in cluster.completion_ids if name in experts]
    outside = sum(one.out_of_scope for one in done)
    if outside > max(1, len(done) - outside):
        return 0
    labels = Counter(one.label for one in done if one.label is not None)
    often = [by_label[label] for label, count in labels.items() if count > 1]
    found = max(len(done) - outside, *often, 0)
    return max(0, min(ENOUGH - found, len(cluster.completion_ids) - len(done)))


def _question(row: dict[str, Any]) -> str:
    """Return the last user turn of the conversation that an example of this record would have."""
    return conversation(row["title"] or "", row["input"], row["history"])[-1]["content"]

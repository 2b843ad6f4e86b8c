"""The interface of a curation stage: it takes a frame of records and returns the records that it keeps, and
for every dropped record the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat, FunnelStage
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.review import CORRECTED_IN_REVIEW

if TYPE_CHECKING:
    from tunewheel_curate.evaluation.benchmarks import Overlap
    from tunewheel_curate.holdout.memory import HoldoutMemory
    from tunewheel_curate.labels.suspects import Suspects
    from tunewheel_curate.similarity.near_index import NearIndex
    from tunewheel_curate.similarity.pairs import SimilarPairs

RECORD_SCHEMA: dict[str, pl.DataType] = {
    "project": pl.String(),
    "record_id": pl.String(),
    "kind": pl.String(),
    "source_id": pl.String(),
    "source_event_id": pl.String(),
    "title": pl.String(),
    "input": pl.String(),
    "output": pl.String(),
    "rejected_output": pl.String(),
    "rating": pl.String(),
    "rated_output": pl.String(),
    "history": pl.String(),
    "sections": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "validated_by": pl.String(),
    "principal": pl.String(),
    "validated_at": pl.Datetime("us", "UTC"),
    "occurred_at": pl.Datetime("us", "UTC"),
    "attributes": pl.String(),
    "event_id": pl.String(),
    "published_at": pl.Datetime("us", "UTC"),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
}
"""One row per delivery of ``record.ingested``. ``attributes``, ``history`` and ``sections`` are canonical
JSON; ``history`` and ``sections`` are null where the record has none. ``principal`` is the caller whom a door
identified, or null. ``published_at`` is the event's ``ce_time``. ``partition`` and ``offset`` are the event's
place on the log."""

TRAIN, HOLDOUT = "train", "holdout"
"""The values of the column ``side``."""
DRAFTED_SCHEMA: dict[str, pl.DataType] = {
    "label": pl.String(),
    "format": pl.String(),
    "side": pl.String(),
    "document": pl.String(),
    "place": pl.String(),
    "heading": pl.String(),
    "cut": pl.String(),
    "instead_of": pl.String(),
}
"""The columns that drafting adds. ``document`` is the record that a row was made of, ``place`` the heading
path, page or lines there, and ``heading`` the heading alone; null: the row is no draft from a document.
``cut`` is the text that cleaning removed. ``instead_of`` is the record that the row would replace if a person
released it (``select_usable``)."""

DROPPED_SCHEMA: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "reason": pl.String(),
    "duplicate_of": pl.String(),
}

RATED = "rated"
"""The trust level of an answer that only a user's rating supports."""
TAUGHT = "taught"
"""The trust level of a teacher's answer to a production prompt that nobody validated."""
DOCUMENT = "document"
"""The reason with which ``select_usable`` drops documents. ``draft`` takes them up."""
RATED_DOWN = "rated_down"
"""The reason with which ``select_usable`` drops an answer that was only rated down: there is an answer to
avoid and no better one. ``draft`` takes these records up."""
TRUST_RANK = {RATED: -1, TAUGHT: -1, "unverified": 0, "corrected": 1, "expert": 2}


_CORRECTS = f'"{CORRECTED_IN_REVIEW}":'
"""The key as canonical JSON writes it. In a value the quotes would be escaped, so only the key matches."""


def trust_rank() -> pl.Expr:
    """Return the rank of ``trust``; an unknown level ranks as ``unverified``.

    An expert who corrected an answer in a review had seen the other expert's answer, so the correction ranks
    above ``expert``.
    """
    corrects = pl.col("attributes").str.contains(_CORRECTS, literal=True).fill_null(False)
    rank = pl.col("trust").replace_strict(TRUST_RANK, default=0, return_dtype=pl.Int32)
    return rank + (corrects & (pl.col("trust") == "expert")).cast(pl.Int32)


@dataclass(frozen=True)
class Stage:
    """The outcome of one stage.

    ``kept`` has the columns of the records that came in. ``dropped`` has the columns of ``DROPPED_SCHEMA``,
    one row per record. ``counts`` holds figures that are not drops, such as redactions by entity.
    """

    name: str
    kept: pl.DataFrame
    dropped: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    counts_of: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The part of ``counts`` that each row has, by ``record_id``; only of a step that judges each row by
    itself."""
    waiting: tuple[pl.DataFrame, ...] = ()
    """Lists of records that wait for a person; see ``quarantine/rules.py``."""
    review: tuple[pl.DataFrame, ...] = ()
    """Lists of records that people should review; see ``labels/review.py``."""
    pairs: SimilarPairs | None = None
    """Similar records, as positions in the records that came in. None: the stage compared none."""
    near_index: NearIndex | None = None
    semantic: SemanticReport | None = None
    suspects: Suspects | None = None
    memory: HoldoutMemory | None = None
    """What this version and all earlier ones held out."""
    overlaps: tuple[Overlap, ...] = ()
    shown: bool = True
    """Whether the stage belongs in the funnel. A stage that never drops a record does not."""

    @property
    def funnel(self) -> FunnelStage:
        reasons = self.dropped.group_by("reason").len().sort("reason")
        return FunnelStage(
            stage=self.name,
            entered=self.kept.height + self.dropped.height,
            left=self.kept.height,
            reasons=dict(reasons.iter_rows()),
        )


def drafted(records: pl.DataFrame) -> pl.DataFrame:
    """Return ``records`` with the columns of ``DRAFTED_SCHEMA``, as rows that train."""
    values = {"format": ExampleFormat.ANSWER.value, "side": TRAIN}
    return records.with_columns(
        pl.lit(values.get(name), dtype=kind).alias(name)
        for name, kind in DRAFTED_SCHEMA.items()
        if name not in records.columns
    )


def without_texts(stage: Stage) -> Stage:
    """Return ``stage`` with only the columns that funnel and lineage need: texts take memory."""
    return replace(
        stage,
        kept=stage.kept.select(pl.col("^(record_id|flags)$")),
        pairs=None,
        counts_of={},
        review=(),
        waiting=(),
    )


def keep_all(name: str, records: pl.DataFrame) -> Stage:
    """Keep ``records``, for a stage that only adds columns or pairs."""
    nothing = pl.DataFrame(schema=DROPPED_SCHEMA)
    return Stage(name, records, nothing, shown=False)


def counted(stage: Stage, records: pl.DataFrame, tallies: Mapping[int, Mapping[str, int]]) -> Stage:
    """Return ``stage`` with the counts ``tallies``, by position in ``records``."""
    ids = records["record_id"]
    total = Counter[str]()
    for tally in tallies.values():
        total.update(tally)
    counts_of = {ids[row]: dict(tally) for row, tally in tallies.items() if tally}
    return replace(stage, counts=dict(sorted(total.items())), counts_of=counts_of)


def drop(name: str, records: pl.DataFrame, reason: pl.Expr | pl.Series) -> Stage:
    """Keep the records whose ``reason`` is null; drop the others, each for its reason."""
    marked = records.with_columns(reason.alias("reason"))
    dropped = marked.filter(pl.col("reason").is_not_null())
    return Stage(
        name=name,
        kept=marked.filter(pl.col("reason").is_null()).drop("reason") if dropped.height else records,
        dropped=dropped_frame(dropped["record_id"], dropped["reason"]),
    )


def dropped_frame(
    record_ids: pl.Series, reasons: pl.Series, duplicates_of: pl.Series | None = None
) -> pl.DataFrame:
    """Assemble a frame of ``DROPPED_SCHEMA``."""
    other = pl.Series([None] * len(record_ids), dtype=pl.String) if duplicates_of is None else duplicates_of
    columns = {"record_id": record_ids, "reason": reasons, "duplicate_of": other}
    return pl.DataFrame(columns, schema=DROPPED_SCHEMA)

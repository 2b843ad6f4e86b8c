"""Lists labels for people to review: conflicting records, labels that the schema does not know, and suspects.

This module decides nothing. Conflicting records were dropped before; suspects stay in the dataset. Both are
listed with what a person needs to decide: who said what, and when.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.principal import Trust
from tunewheel_outputs.labels import label_of

from tunewheel_curate.examples.answer_shape import AnswerShape, shape_of_answers
from tunewheel_curate.examples.free_text import without_free_text
from tunewheel_curate.examples.output_validation import with_unknown_labels
from tunewheel_curate.labels.conflicts import agreeing, contradicting
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components
from tunewheel_curate.stage import Stage

CONFLICT, NEAR_CONFLICT, OFF_SCHEMA, SUSPECT = "conflict", "near_conflict", "off_schema", "suspect"
ANSWER_CONFLICT = "answer_conflict"

REVIEW_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "cluster": pl.String(),
    "record_id": pl.String(),
    "kind_of_record": pl.String(),
    "source_id": pl.String(),
    "title": pl.String(),
    "input": pl.String(),
    "label": pl.String(),
    "labels_in_cluster": pl.List(pl.String()),
    "suggested": pl.String(),
    "confidence": pl.Float64(),
    "validated_by": pl.String(),
    "validated_at": pl.Datetime("us", "UTC"),
    "trust": pl.String(),
    "occurred_at": pl.Datetime("us", "UTC"),
    "published_at": pl.Datetime("us", "UTC"),
    "output": pl.String(),
}
"""``cluster`` is the smallest ``record_id`` of the records that contradict each other, or the record's own.
For suspects, ``confidence`` is the probability of the label by a classifier that never saw the record, and
``suggested`` is the classifier's label; other kinds have null. ``validated_at`` is null if the source did not
give it; ``occurred_at`` may then be the time when a ticket was created. Texts are redacted, as in
training."""

_ORDER = (CONFLICT, NEAR_CONFLICT, ANSWER_CONFLICT, OFF_SCHEMA, SUSPECT)


def conflicting(before: pl.DataFrame, stage: Stage) -> pl.DataFrame:
    """List the records that ``drop_conflicts`` dropped from ``before`` (columns ``key`` and ``label``), and
    the records that they contradicted, by question."""
    contested = before.join(stage.dropped.select("record_id"), on="record_id", how="semi").select("key")
    rows = before.join(contested.unique(), on="key", how="semi").filter(pl.col("label").is_not_null())
    return _clustered(rows.sort("record_id"), "key", CONFLICT)


def answer_conflicting(records: pl.DataFrame, task: TaskSpec) -> pl.DataFrame:
    """List experts' records that answer the same question (``key``) differently although their labels agree.
    The newest of them stays in the dataset.

    In an answer with a schema, free text does not count: it may say the same in other words.
    """
    expert = records.filter(pl.lit(pl.Series(_of_experts(records))))
    rows = expert.filter(pl.len().over("key") > 1).sort("record_id")
    shape = shape_of_answers(task)
    decisive = [_decisive(output, shape) for output in rows["output"]]
    rows = rows.with_columns(pl.Series("_decisive", decisive, dtype=pl.String))
    rows = rows.filter(pl.col("_decisive").n_unique().over("key") > 1)
    return _clustered(rows, "key", ANSWER_CONFLICT)


def _decisive(output: str, shape: AnswerShape | None) -> str:
    value = json.loads(output) if shape is not None else None
    if shape is None or not isinstance(value, dict):
        return output
    bounded = without_free_text(value, shape)
    return json.dumps(bounded, sort_keys=True) if _says_something(bounded) else output


def _says_something(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_says_something, value.values() if isinstance(value, dict) else value))
    return value is not None


def near_conflicting(before: pl.DataFrame, pairs: Sequence[SimilarPair]) -> pl.DataFrame:
    """List the members of the clusters that contradicting ``pairs`` (positions in ``before``) connect."""
    return _connected(before, contradicting(before, pairs), NEAR_CONFLICT)


def near_answer_conflicting(
    before: pl.DataFrame, pairs: Sequence[SimilarPair], task: TaskSpec
) -> pl.DataFrame:
    """List experts' records that answer nearly the same question differently although their labels agree.
    ``pairs`` are positions in ``before``. See ``answer_conflicting``."""
    expert = _of_experts(before)
    agreed = agreeing(before, pairs)
    of_experts = agreed.where(expert[agreed.first] & expert[agreed.second])
    involved = np.unique(np.concatenate([of_experts.first, of_experts.second]))
    shape = shape_of_answers(task)
    decisive = [_decisive(output, shape) for output in before["output"].gather(involved)]
    answers = np.zeros(before.height, np.int64)
    answers[involved] = pl.Series(decisive, dtype=pl.String).rank("dense").to_numpy()
    return _connected(
        before, of_experts.where(answers[of_experts.first] != answers[of_experts.second]), ANSWER_CONFLICT
    )


def _of_experts(records: pl.DataFrame) -> npt.NDArray[np.bool_]:
    expert = (pl.col("trust") == Trust.EXPERT.value) & pl.col("output").is_not_null()
    return records.select(expert).to_series().to_numpy()


def _connected(before: pl.DataFrame, contested: SimilarPairs, kind: str) -> pl.DataFrame:
    roots = components(before.height, contested)
    clustered = before.with_columns(pl.Series("_root", roots, dtype=pl.Int64)).with_row_index("_row")
    inside = pl.Series([*contested.first.tolist(), *contested.second.tolist()], dtype=pl.UInt32).unique()
    rows = clustered.filter(pl.col("_row").is_in(inside.implode())).sort("record_id")
    return _clustered(rows, "_root", kind)


def off_schema(before: pl.DataFrame, stage: Stage, task: TaskSpec) -> pl.DataFrame:
    """List the records that ``validate_outputs`` dropped from ``before`` and whose label the schema does not
    know."""
    off = stage.dropped.filter(pl.col("reason").str.starts_with("off_schema: "))
    rows = before.join(off.select("record_id", "reason"), on="record_id", how="inner").sort("record_id")
    named = pl.col("reason").str.starts_with(f"off_schema: {task.label_field} ")
    rows = rows.filter(named | pl.col("output").is_in(with_unknown_labels(rows["output"], task).implode()))
    labels = [label_of(output, task) for output in rows["output"]]
    rows = rows.with_columns(
        pl.Series("label", labels, dtype=pl.String), pl.col("record_id").alias("cluster")
    )
    return _listed(rows, OFF_SCHEMA)


def suspected(records: pl.DataFrame, suspects: pl.DataFrame) -> pl.DataFrame:
    """List ``suspects`` (record_id, suggested, confidence), least believed first."""
    rows = suspects.join(records, on="record_id", how="inner").with_columns(
        pl.col("record_id").alias("cluster")
    )
    return _listed(rows, SUSPECT)


def review_list(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Join the lists: conflicts first, sorted by cluster; then suspects, sorted by confidence."""
    rows = pl.concat([pl.DataFrame(schema=REVIEW_SCHEMA), *parts])
    place = pl.col("kind").replace_strict({kind: n for n, kind in enumerate(_ORDER)}, return_dtype=pl.Int32)
    return rows.sort([place, "confidence", "cluster", "record_id"], nulls_last=True)


def review_counts(review: pl.DataFrame) -> dict[str, int]:
    """Return the number of records to look at, by kind."""
    counted = dict(review.group_by("kind").len().iter_rows())
    return {kind: counted[kind] for kind in _ORDER if kind in counted}


def _clustered(rows: pl.DataFrame, by: str, kind: str) -> pl.DataFrame:
    """List ``rows``, sorted by ``record_id``. Rows with the same value of ``by`` form a cluster."""
    return _listed(rows.with_columns(pl.col("record_id").first().over(by).alias("cluster")), kind)


def _listed(rows: pl.DataFrame, kind: str) -> pl.DataFrame:
    optional = [
        pl.lit(None, dtype=REVIEW_SCHEMA[name]).alias(name)
        for name in ("suggested", "confidence")
        if name not in rows.columns
    ]
    labels = pl.col("label").unique().sort().implode().over("cluster")
    return rows.with_columns(
        pl.col("kind").alias("kind_of_record"),
        pl.lit(kind).alias("kind"),
        labels.alias("labels_in_cluster"),
        *optional,
    ).select(pl.col(name).cast(kind_of) for name, kind_of in REVIEW_SCHEMA.items())

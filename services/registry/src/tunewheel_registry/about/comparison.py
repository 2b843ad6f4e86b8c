"""Compares two models of a project: datasets, training, evaluation and serving configuration."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from pydantic import BaseModel
from tunewheel_contracts.changes import Change, changes
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.scorecard import Finding, Role
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_registry.about.card import bundle_of
from tunewheel_registry.about.facts import ModelFacts


class DatasetChange(BaseModel):
    """The difference of two datasets. Records and examples are compared by their ids, which are content
    hashes."""

    datasets: Change
    records_added: int | None = None
    """Number of records that only the second version uses; null: a file of a version cannot be read."""
    records_removed: int | None = None
    labels: dict[str, Change] = {}
    """Number of training examples by label, for labels where it differs."""
    counts: dict[str, Change] = {}
    spec: dict[str, Change] = {}
    """Differences by dotted path, without recipe and criteria, which are compared elsewhere."""


class Measured(BaseModel):
    """One metric of both models. ``findings``: each model's difference from the models it was judged
    against."""

    first: float | None
    second: float | None
    lower_is_better: bool | None
    """Null: no scorecard states it."""
    repeat_spread: float | None
    """Difference between two measurements of the same model."""


class Comparison(BaseModel):
    first: str
    second: str
    dataset: DatasetChange
    recipe: dict[str, Change]
    criteria: dict[str, Change]
    """Differing criteria, by position in the spec."""
    metrics: dict[str, Measured]
    same_holdout: bool
    """False: the figures come from different rows, so their difference says little."""
    direct: list[Finding]
    """Differences of the second model from the first, row by row, with intervals. Empty where the second was
    not judged against the first."""
    bundle: dict[str, Change]
    missing: dict[str, str]
    """Artifacts that cannot be read, and why."""


async def compare(store: ObjectStore, first: ModelFacts, second: ModelFacts) -> Comparison:
    """Compare two models. Raises TransientError: the store is unavailable."""
    missing = {f"{f.model.model_id} {n}": why for f in (first, second) for n, why in f.missing.items()}
    one, other = first.dataset, second.dataset
    bundles = [bundle.settings if (bundle := bundle_of(f)) else {} for f in (first, second)]
    recipes = [f.run.recipe.model_dump(mode="json") if f.run else {} for f in (first, second)]
    return Comparison(
        first=first.model.model_id,
        second=second.model.model_id,
        dataset=await _datasets(store, first, second, missing),
        recipe=changes(*recipes),
        criteria=changes(*({"criteria": _criteria(dataset)} for dataset in (one, other))),
        metrics=_metrics(first, second),
        same_holdout=one is not None and other is not None and one.holdout.sha256 == other.holdout.sha256,
        direct=_direct(first, second),
        bundle=changes(*bundles),
        missing=missing,
    )


async def _datasets(
    store: ObjectStore, first: ModelFacts, second: ModelFacts, missing: dict[str, str]
) -> DatasetChange:
    one, other = first.dataset, second.dataset
    change = DatasetChange(
        datasets=(first.model.registration.dataset_id, second.model.registration.dataset_id)
    )
    if one is None or other is None:
        return change
    change.counts = changes(one.counts.model_dump(mode="json"), other.counts.model_dump(mode="json"))
    change.spec = changes(_rest_of_spec(one), _rest_of_spec(other))
    try:
        before, after = await _trained_on(store, one.train), await _trained_on(store, other.train)
    except (ArtifactMissing, CorruptArtifact) as error:
        missing["rows"] = str(error)
        return change
    change.records_added = len(after[0] - before[0])
    change.records_removed = len(before[0] - after[0])
    change.labels = changes(before[1], after[1])
    return change


async def _trained_on(store: ObjectStore, ref: ArtifactRef) -> tuple[frozenset[str], dict[str, int]]:
    """Return the record ids of the training rows, and the number of rows per label."""
    data = await store.get(ref)

    def read() -> tuple[frozenset[str], dict[str, int]]:
        import polars as pl

        columns = [one for one in pl.read_parquet_schema(BytesIO(data)) if one in ("record_ids", "label")]
        frame = pl.read_parquet(BytesIO(data), columns=columns)
        labels = Counter(frame["label"].drop_nulls().to_list() if "label" in columns else ())
        return frozenset(frame["record_ids"].explode().drop_nulls()), dict(sorted(labels.items()))

    return await asyncio.to_thread(read)


def _rest_of_spec(dataset: DatasetManifest) -> dict[str, Any]:
    return dataset.spec.model_dump(mode="json", exclude={"train", "criteria"})


def _criteria(dataset: DatasetManifest | None) -> dict[str, Any]:
    """Return the criteria by position, so that they can be compared like the other documents."""
    criteria = dataset.spec.criteria if dataset else ()
    return {str(n): c.model_dump(mode="json", exclude_none=True) for n, c in enumerate(criteria, 1)}


def _metrics(first: ModelFacts, second: ModelFacts) -> dict[str, Measured]:
    figures = [_figures(first), _figures(second)]
    known = {n: m for f in (first, second) if f.scorecard for n, m in f.scorecard.metrics.items()}
    return {
        name: Measured(
            first=figures[0].get(name),
            second=figures[1].get(name),
            lower_is_better=known[name].lower_is_better if name in known else None,
            repeat_spread=known[name].repeat_spread if name in known else None,
        )
        for name in dict.fromkeys([*figures[0], *figures[1]])
    }


def _figures(facts: ModelFacts) -> Mapping[str, float]:
    contestants = facts.scorecard.contestants if facts.scorecard else ()
    return next((c.metrics for c in contestants if c.role is Role.CANDIDATE), {})


def _direct(first: ModelFacts, second: ModelFacts) -> list[Finding]:
    card = second.scorecard
    champions = [c.model_id for c in card.contestants if c.role is Role.CHAMPION] if card else []
    if card is None or first.model.model_id not in champions:
        return []
    return [finding for finding in card.findings if finding.against == Role.CHAMPION.value]

"""Checks that a build has enough examples to train on."""

from __future__ import annotations

import polars as pl
from tunewheel_contracts.events.data import Trust
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.holdout.splitting import Split


def why_rejected(examples: pl.DataFrame, split: Split, spec: ProjectSpec) -> tuple[str, ...]:
    """Return the reasons against a version of ``examples``; empty if it may be published. Each reason names
    the field and the fix."""
    reasons: list[str] = []
    wanted = spec.dataset.min_examples
    if examples.height < wanted:
        reasons.append(
            f"dataset.min_examples: {examples.height} clean examples where {wanted} are needed; "
            "publish more answered records, or lower it"
        )
    askable = (*spec.dataset.holdout_trust, Trust.UNVERIFIED)
    if examples.height and not examples["trust"].is_in(askable).any():
        reasons.append(
            "dataset.holdout_trust: no answer may be held out, because end users or models gave all of them; "
            "publish answers with validated_by, or add corrected to the list"
        )
    elif examples.height and (split.holdout.is_empty() or split.train.is_empty()):
        groups = examples["group"].n_unique()
        reasons.append(
            f"group: {groups} groups leave nothing to hold out or nothing to train on, because groups with "
            "similar questions stay together; give unrelated records different groups (customers, "
            "threads), and publish questions that differ"
        )
    if spec.task.label_field is not None and examples.height and examples["label"].n_unique() < 2:
        only = examples["label"].unique().to_list()
        reasons.append(
            f"task.label_field: all examples have the same {spec.task.label_field}, {only[0]!r}; "
            "publish examples of at least two"
        )
    return tuple(reasons)


def why_preliminary(examples: int, spec: ProjectSpec) -> str | None:
    """Return why a version with this many ``examples`` is only preliminary; None if there are enough."""
    wanted = spec.dataset.comfortable_examples
    if examples >= wanted:
        return None
    return (
        f"dataset.comfortable_examples: {examples} clean examples where {wanted} make a model dependable; "
        "publish more answered records"
    )

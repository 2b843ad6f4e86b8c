"""Dataset versions on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunewheel_cli.texts import flat, print_table

if TYPE_CHECKING:
    from tunewheel_contracts.api.datasets import DatasetDetail, DatasetDifference
    from tunewheel_contracts.changes import Change


def print_version(found: DatasetDetail) -> None:
    """Print what a version holds, and what became of every record on the way to it."""
    counts, manifest = found.counts, found.manifest
    print(f"{found.dataset_id}  {found.project}, for {found.base_model}")
    print(
        f"{counts.examples:,} examples of {counts.records:,} records: {counts.train:,} rows to train on "
        f"({counts.replay:,} replayed), {counts.holdout:,} held out, {counts.preferences:,} preference pairs"
        + (f", {counts.negatives:,} answers rated down" if counts.negatives else "")
    )
    if found.preliminary:
        print(f"preliminary: {flat(found.preliminary)}")
    if found.rows_deleted:
        print("its rows were deleted by an erasure")
    print(f"follows {found.previous}" if found.previous else "the project's first")
    if manifest.data_docs:
        print(f"Data Docs: {manifest.data_docs}")
    stages = [
        (stage.stage, stage.entered, stage.left, [f"{why} {count:,}" for why, count in stage.reasons.items()])
        for stage in found.funnel
    ]
    print_table(("stage", "in", "out", "why the rest is not"), stages)
    if found.labels:
        rows = [(label, one.train, one.holdout) for label, one in found.labels.items()]
        print_table(("label", "train", "holdout"), rows)
    if (use := manifest.replay) is not None:
        print(
            f"replay: {use.sampled:,} of {use.available:,} conversations of {use.source} "
            f"({use.share:.1%} of training; licence {use.license or 'not stated'})"
        )


def print_difference(found: DatasetDifference) -> None:
    """Print what changed."""
    print(f"{found.before} → {found.after}")
    if found.is_none:
        print("nothing differs")
        return
    rows = [
        (name, figures.get("train", 0), figures.get("holdout", 0))
        for name, figures in (("added", found.added), ("removed", found.removed))
    ]
    print_table(("examples", "train", "holdout"), rows)
    for move, count in found.moved.items():
        print(f"moved {move}: {count:,}")
    if found.answers_changed:
        print(f"answers changed: {found.answers_changed:,}")
        for question in found.changed_questions:
            print(f"  {flat(question)}")
    for title, changes in (("count", found.counts), ("label", found.labels), ("spec", found.spec)):
        _print_changes(title, changes)
    for stage, changes in found.funnel.items():
        _print_changes(f"stage {stage}", changes)


def _print_changes(title: str, changes: Mapping[str, Change]) -> None:
    if changes:
        rows = [(name, _cell(before), _cell(after)) for name, (before, after) in changes.items()]
        print_table((title, "before", "after"), rows)


def _cell(value: Any) -> str:
    return "-" if value is None else flat(value)

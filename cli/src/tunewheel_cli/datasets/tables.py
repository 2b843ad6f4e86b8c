"""Dataset versions on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from tunewheel_contracts.changes import Change
from tunewheel_contracts.formats.dataset import DatasetManifest

from tunewheel_cli.datasets.comparing import Difference


def print_version(manifest: DatasetManifest, *, labels: Mapping[str, tuple[int, int]]) -> None:
    """Print what a version holds; ``labels`` are (train, holdout) by label."""
    Console(highlight=False).print(Group(*_version_parts(manifest, labels)))


def _version_parts(manifest: DatasetManifest, labels: Mapping[str, tuple[int, int]]) -> list[RenderableType]:
    counts = manifest.counts
    parts: list[RenderableType] = [
        Text.assemble((manifest.dataset_id, "bold"), f"  {manifest.project}, for {manifest.spec.base_model}"),
        f"{counts.examples:,} examples of {counts.records:,} records: {counts.train:,} rows to train on "
        f"({counts.replay:,} replayed), {counts.holdout:,} held out, {counts.preferences:,} preference pairs"
        + (f", {counts.negatives:,} answers rated down" if counts.negatives else ""),
    ]
    if manifest.preliminary:
        parts.append(Text(f"preliminary: {manifest.preliminary}", style="yellow"))
    follows = f"follows {manifest.previous}" if manifest.previous else "the project's first"
    parts.append(f"{follows}; card {manifest.card.path if manifest.card else 'none'}")
    if manifest.data_docs:
        parts.append(f"Data Docs: {manifest.data_docs}")
    parts.append(_funnel(manifest))
    if labels:
        table = _table("label", "train", "holdout")
        for label, (train, holdout) in labels.items():
            table.add_row(Text(label), f"{train:,}", f"{holdout:,}")
        parts.append(table)
    if manifest.replay is not None:
        use = manifest.replay
        parts.append(
            f"replay: {use.sampled:,} of {use.available:,} conversations of {use.source} "
            f"({use.share:.1%} of training; licence {use.license or 'not stated'})"
        )
    return parts


def _funnel(manifest: DatasetManifest) -> Table:
    table = _table("stage", "in", "out", "why the rest is not")
    for stage in manifest.funnel:
        why = ", ".join(f"{reason} {count:,}" for reason, count in stage.reasons.items())
        table.add_row(stage.stage, f"{stage.entered:,}", f"{stage.left:,}", Text(why))
    return table


def print_difference(difference: Difference) -> None:
    """Print what changed."""
    console = Console(highlight=False)
    console.print(Text.assemble((difference.before, "bold"), " → ", (difference.after, "bold")))
    if difference.is_none:
        console.print("nothing differs")
        return
    if "project" in difference.spec:
        one, other = difference.spec["project"]
        console.print(Text(f"of two projects: {one} and {other}", style="yellow"))
    table = _table("examples", "train", "holdout")
    for name, figures in (("added", difference.added), ("removed", difference.removed)):
        table.add_row(name, f"{figures.get('train', 0):,}", f"{figures.get('holdout', 0):,}")
    console.print(table)
    for move, count in difference.moved.items():
        console.print(f"moved {move}: {count:,}")
    if difference.answers_changed:
        console.print(f"answers changed: {difference.answers_changed:,}")
        for question in difference.changed_questions:
            console.print(Text(f"  {question}", style="dim"))
    for title, changes in (
        ("count", difference.counts),
        ("label", difference.labels),
        ("spec", difference.spec),
    ):
        if changes:
            console.print(_changes(title, changes))
    for stage, changes in difference.funnel.items():
        console.print(_changes(f"stage {stage}", changes))


def _changes(title: str, changes: Mapping[str, Change]) -> Table:
    table = _table(title, "before", "after")
    for name, (before, after) in changes.items():
        table.add_row(Text(name), _cell(before), _cell(after))
    return table


def _cell(value: Any) -> Text:
    return Text("–" if value is None else f"{value:,}" if isinstance(value, int) else str(value))  # noqa: RUF001


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)

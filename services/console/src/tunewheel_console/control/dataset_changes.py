"""Compares two dataset versions: examples, labels, stages, spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tunewheel_contracts.api.datasets import DatasetDifference
from tunewheel_contracts.changes import Change, changes

from tunewheel_console.control.dataset_files import DatasetFiles, Version, erased_of, records_of

SHOWN_QUESTIONS = 5
_EXCERPT = 80


async def compare(files: DatasetFiles, one: Version, other: Version) -> DatasetDifference:
    """Compare two versions. Rows of erased records count, and their questions are not shown.

    Raises:
        Refused: the rows were deleted, or an erasure does not say which they are.
        TransientError: the store is away.
    """
    before, after = await _rows(files, one), await _rows(files, other)
    questions = {q: a for q, a in before.answers.items() if after.answers.get(q, a) != a}
    both = before.splits.keys() & after.splits.keys()
    moves = Counter(
        f"{before.splits[name]} → {after.splits[name]}"
        for name in both
        if before.splits[name] != after.splits[name]
    )
    return DatasetDifference(
        before=one.manifest.dataset_id,
        after=other.manifest.dataset_id,
        counts=changes(
            one.manifest.counts.model_dump(mode="json"), other.manifest.counts.model_dump(mode="json")
        ),
        added=_by_split(after.splits, before.splits),
        removed=_by_split(before.splits, after.splits),
        moved=dict(sorted(moves.items())),
        answers_changed=len(questions),
        changed_questions=tuple(sorted(_excerpt(q) for q in questions)[:SHOWN_QUESTIONS]),
        labels=changes(before.labels, after.labels),
        funnel=_funnel_changes(one, other),
        spec=changes(one.manifest.spec.model_dump(mode="json"), other.manifest.spec.model_dump(mode="json")),
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    splits: dict[str, str]
    answers: dict[str, str]
    labels: dict[str, int]


async def _rows(files: DatasetFiles, version: Version) -> _Rows:
    splits: dict[str, str] = {}
    answers: dict[str, str] = {}
    labels: Counter[str] = Counter()
    erased = erased_of(version)
    for split in ("train", "holdout"):
        frame = await files.frame(version, split)
        for row in frame.select("example_id", "label", "messages", "record_ids").iter_rows(named=True):
            splits[row["example_id"]] = split
            if split == "train" and row["label"] is not None:
                labels[row["label"]] += 1
            if erased.isdisjoint(records_of(row)):
                *asked, answer = row["messages"]
                question = "\n".join(turn["content"] for turn in asked if turn["role"] != "system")
                answers[question] = answer["content"]
    return _Rows(splits, answers, dict(sorted(labels.items())))


def _by_split(here: Mapping[str, str], there: Mapping[str, str]) -> dict[str, int]:
    return dict(sorted(Counter(split for name, split in here.items() if name not in there).items()))


def _funnel_changes(one: Version, other: Version) -> dict[str, dict[str, Change]]:
    def figures(version: Version) -> dict[str, dict[str, int]]:
        return {
            stage.stage: {"entered": stage.entered, "left": stage.left, **stage.reasons}
            for stage in version.manifest.funnel
        }

    before, after = figures(one), figures(other)
    found = {name: changes(before.get(name, {}), after.get(name, {})) for name in {**before, **after}}
    return {name: changed for name, changed in found.items() if changed}


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _EXCERPT else words[: _EXCERPT - 1] + "…"

"""Compares two dataset versions: examples, labels, stages, spec."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.changes import Change, changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from tunewheel_cli.datasets.versions import Version

SHOWN_QUESTIONS = 5
_EXCERPT = 80


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes from ``before`` to ``after``."""

    before: str
    after: str
    counts: dict[str, Change]
    added: dict[str, int]
    """Examples only in ``after``, by side."""
    removed: dict[str, int]
    """Examples only in ``before``, by side."""
    moved: dict[str, int]
    """Examples of both versions that changed splits: train → holdout, never the other way."""
    answers_changed: int
    """Questions of both versions with different answers. They count in ``added`` and ``removed`` too."""
    changed_questions: tuple[str, ...]
    labels: dict[str, Change]
    """By label, the number of training examples."""
    funnel: dict[str, dict[str, Change]]
    """By stage, how many records entered and left, and the number for each reason."""
    spec: dict[str, Change]
    """By dotted path."""

    @property
    def is_none(self) -> bool:
        """Whether the versions do not differ."""
        return not any(value for name, value in asdict(self).items() if name not in ("before", "after"))

    def as_json(self) -> dict[str, Any]:
        """Return the difference for machines; a change is [before, after]."""
        return asdict(self)


async def compare(one: Version, other: Version) -> Difference:
    """Compare two versions.

    Raises:
        ArtifactMissing, CorruptArtifact, TransientError: the store does not hold their rows.
    """
    before, after = await _rows(one), await _rows(other)
    questions = {q: a for q, a in before.answers.items() if after.answers.get(q, a) != a}
    both = before.splits.keys() & after.splits.keys()
    moves = Counter(
        f"{before.splits[name]} → {after.splits[name]}"
        for name in both
        if before.splits[name] != after.splits[name]
    )
    return Difference(
        before=one.manifest.dataset_id,
        after=other.manifest.dataset_id,
        counts=changes(
            one.manifest.counts.model_dump(mode="json"), other.manifest.counts.model_dump(mode="json")
        ),
        added=_by_side(after.splits, before.splits),
        removed=_by_side(before.splits, after.splits),
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


async def _rows(version: Version) -> _Rows:
    splits: dict[str, str] = {}
    answers: dict[str, str] = {}
    labels: Counter[str] = Counter()
    for side in ("train", "holdout"):
        frame: pl.DataFrame = await version.frame(getattr(version.manifest, side))
        for name, label, messages in frame.select("example_id", "label", "messages").iter_rows():
            splits[name] = side
            answers["\n".join(turn["content"] for turn in messages[:-1] if turn["role"] != "system")] = (
                messages[-1]["content"]
            )
            if side == "train" and label is not None:
                labels[label] += 1
    return _Rows(splits, answers, dict(sorted(labels.items())))


def _by_side(here: Mapping[str, str], there: Mapping[str, str]) -> dict[str, int]:
    return dict(sorted(Counter(side for name, side in here.items() if name not in there).items()))


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

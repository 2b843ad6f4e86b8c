"""Leaves out rows that some contestant could not be measured on, for all contestants, and counts the
reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.scorecard import Role

from tunewheel_eval.errors import UnfitCandidate
from tunewheel_eval.measurement import Measurement, SkippedRow, SkipReason, example_key

LARGEST_SHARE = 0.05
"""The share of the held-out rows, and of the general items, that may be left out. One row may always be."""
_GENERAL = "general_"
"""The prefix of the reason for a general item that is left out."""


@dataclass(frozen=True)
class Kept:
    """The rows that every contestant was measured on."""

    examples: tuple[ChatExample, ...]
    items: tuple[RegressionItem, ...]
    left_out: dict[str, int]
    """The number of left-out rows, by reason."""


def keep_measured(
    measured: Mapping[Role, Measurement],
    examples: Sequence[ChatExample],
    items: Sequence[RegressionItem],
    *,
    max_output_tokens: int,
) -> Kept:
    """Return the rows that no contestant skipped.

    Raises:
        UnfitCandidate: so many rows were skipped that the rest is too small to judge by.
    """
    skipped: dict[str, SkippedRow] = {
        key: row
        for measurement in measured.values()
        for key, row in measurement.rows.items()
        if isinstance(row, SkippedRow)
    }
    keys = [example_key(one, max_output_tokens=max_output_tokens) for one in examples]
    of_examples = [skipped[key] for key in keys if key in skipped]
    of_items = [skipped[item.key] for item in items if item.key in skipped]
    _check(of_examples, len(examples), "held-out rows")
    _check(of_items, len(items), "general items")
    reasons = [row.reason.value for row in of_examples]
    reasons += [f"{_GENERAL}{row.reason.value}" for row in of_items]
    return Kept(
        tuple(one for one, key in zip(examples, keys, strict=True) if key not in skipped),
        tuple(item for item in items if item.key not in skipped),
        dict(sorted(Counter(reasons).items())),
    )


def _check(skipped: Sequence[SkippedRow], total: int, what: str) -> None:
    if len(skipped) <= max(1, int(total * LARGEST_SHARE)) and (len(skipped) < total or not total):
        return
    first = skipped[0]
    long = first.reason is SkipReason.TOO_LONG
    raise UnfitCandidate(
        field="spec.dataset.max_tokens" if long else "dataset.holdout",
        reason=f"{len(skipped)} of {total} {what} cannot be measured, such as {first.detail}; "
        + (
            "lower spec.dataset.max_tokens, spec.task.max_output_tokens or, where prompts have passages, "
            "spec.retrieval.budget_tokens"
            if long
            else "rebuild the dataset from answers that say something"
        ),
    )

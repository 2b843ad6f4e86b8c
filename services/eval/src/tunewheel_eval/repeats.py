"""Estimates how much two measurements of one model differ, if tokens are sampled. Each answer is then one of
many that the model could give, so figures vary too.

A few held-out prompts are answered again with other seeds. The variance of a row's score over its answers,
averaged over rows, is the variance of one answer. A figure over n rows has 1/n of this variance, and the
difference of two such figures twice as much. ``repeat_spread`` is the standard deviation of that difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.evaluation_spec import MOST_REPEATS
from tunewheel_contracts.formats.spec import EvaluationSpec
from tunewheel_contracts.identity import content_sha256

from tunewheel_eval.measurement import HoldoutRow, Measurement, RepeatRow
from tunewheel_eval.metrics import RowScorer


def is_greedy(decoding: Decoding) -> bool:
    """Return whether decoding is greedy, so that a prompt always gets the same answer."""
    return decoding.temperature == 0


def repeat_key(key: str, number: int) -> str:
    """Return the key of the ``number``-th repeated answer to the prompt of ``key``."""
    return content_sha256({"of": key, "repeat": number})


def other_mode_key(key: str) -> str:
    """Return the key of the answer to the prompt of ``key`` in the other mode
    (``EvaluationSpec.other_mode``)."""
    return content_sha256({"of": key, "mode": "other"})


def all_keys(key: str) -> set[str]:
    """Return all keys that answers to the prompt of ``key`` may have, including ``key``."""
    repeated = (repeat_key(key, number) for number in range(1, MOST_REPEATS + 1))
    return {key, other_mode_key(key), *repeated}


def repeats_of(keys: Iterable[str], spec: EvaluationSpec) -> dict[str, tuple[str, int]]:
    """Return the prompts that are answered again: key of the repeated answer → (key of the row, number from
    1). The first rows by key are chosen. Keys are hashes, so this is a random sample that is always the
    same."""
    if is_greedy(spec.decoding):
        return {}
    numbers = range(1, spec.repeats + 1)
    chosen = sorted(set(keys))[: spec.repeat_rows]
    return {repeat_key(key, number): (key, number) for key in chosen for number in numbers}


def repeat_spreads(
    measurement: Measurement,
    examples: Mapping[str, ChatExample],
    scorers: Mapping[str, RowScorer],
    spec: EvaluationSpec,
) -> dict[str, float]:
    """Return the ``repeat_spread`` of each metric of ``scorers``, in the metric's unit, for figures over
    ``examples`` (by key). Empty if no repeats were measured. Metrics that do not depend on the output, such
    as perplexity, are left out."""
    answers: dict[str, list[HoldoutRow]] = {}
    for again, (key, _) in repeats_of(examples, spec).items():
        row, first = measurement.rows.get(again), measurement.rows.get(key)
        if isinstance(row, RepeatRow) and isinstance(first, HoldoutRow):
            other = first.model_copy(update={"output": row.output, "complete": row.complete})
            answers.setdefault(key, [first]).append(other)
    found: dict[str, float] = {}
    for name, score in scorers.items():
        scored = [[score(examples[key], row) for row in several] for key, several in answers.items()]
        repeated = [[one for one in several if one is not None] for several in scored]
        variances = [float(np.var(several, ddof=1)) for several in repeated if len(several) > 1]
        if variances:
            found[name] = float(np.sqrt(2 * np.mean(variances) / len(examples)))
    return found

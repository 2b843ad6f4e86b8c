"""How far do two measurements of one model lie apart? Asked where tokens are drawn: there each answer is one
of many that the model could have given, and so are the figures.

A few held-out prompts are answered again by other seeds. The variance of a row's scores over its answers,
averaged over rows, is what one answer adds; a figure over n rows varies by an n-th of it, and the difference
of two such figures by twice as much. ``repeat_spread`` is the standard deviation of that difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.spec import MOST_REPEATS, EvaluationSpec
from tunewheel_contracts.identity import content_sha256

from tunewheel_eval.measurement import HoldoutRow, Measurement, RepeatRow
from tunewheel_eval.metrics import RowScorer


def is_greedy(decoding: Decoding) -> bool:
    """Tell whether a model that writes so gives one answer to a prompt, whenever it is asked."""
    return decoding.temperature == 0


def repeat_key(key: str, number: int) -> str:
    """Name the ``number``-th repeated answer to the prompt of ``key``."""
    return content_sha256({"of": key, "repeat": number})


def all_keys(key: str) -> set[str]:
    """Return every key that an answer to the prompt of ``key`` may lie under, its own among them."""
    return {key, *(repeat_key(key, number) for number in range(1, MOST_REPEATS + 1))}


def repeats_of(keys: Iterable[str], spec: EvaluationSpec) -> dict[str, tuple[str, int]]:
    """Return which of the rows ``keys`` are answered again, by the key of the repeated answer: (key of the
    row, number from 1). Those first by key: digits of a hash, so a random sample, and always the same."""
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
    """Return ``repeat_spread`` of each metric of ``scorers``, in its unit, for figures over ``examples``, by
    key; empty where nobody looked. What does not depend on what was written, as perplexity, is left out."""
    answers: dict[str, list[HoldoutRow]] = {}
    for again, (key, _) in repeats_of(examples, spec).items():
        row, first = measurement.rows.get(again), measurement.rows.get(key)
        if isinstance(row, RepeatRow) and isinstance(first, HoldoutRow):
            other = first.model_copy(update={"output": row.output, "complete": row.complete})
            answers.setdefault(key, [first]).append(other)
    found: dict[str, float] = {}
    for name, score in scorers.items():
        scored = [[score(examples[key], row) for row in several] for key, several in answers.items()]
        known = [[one for one in several if one is not None] for several in scored]
        variances = [float(np.var(several, ddof=1)) for several in known if len(several) > 1]
        if variances:
            found[name] = float(np.sqrt(2 * np.mean(variances) / len(examples)))
    return found

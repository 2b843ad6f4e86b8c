"""Splits the holdout into slices, to show for whom a candidate got worse."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.scorecard import Role, Slice
from tunewheel_outputs.criteria import ALPHA
from tunewheel_outputs.metrics import known_metrics
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.parts import of_rows, together
from tunewheel_verdicts.significance import Advantage, Clusters

from tunewheel_eval.comparisons import measured_metric, signed
from tunewheel_eval.metrics import LABELS, Outcomes

MOST_SLICES = 200

IN_TRAINING = "answer in training"
COMPARED = ("label", "language", "source", IN_TRAINING)
"""The properties whose slices have intervals."""
_LENGTHS = ((200, "up to 200 characters"), (1000, "201 to 1,000 characters"))
_LONGER = "more than 1,000 characters"
_SEEN = 500
"""How many characters of a prompt are used to find its script."""


def slices_by(
    criteria: Sequence[Criterion],
    outcomes: Mapping[Role, Outcomes],
    examples: Sequence[ChatExample],
    clusters: Clusters,
    *,
    seed: int,
) -> tuple[Slice, ...]:
    """Return the slices of the holdout with each contestant's mean score, worst first.

    Metrics are those of the criteria, and the accuracy of labels, if they are means over held-out rows; if no
    criterion has such a metric, the first of some that every task has. The first metric has all slices, the
    others have those with intervals.
    """
    asked = list(dict.fromkeys([*(one.metric for one in criteria), LABELS]))
    usable = [name for name in asked if _is_mean(name, outcomes)]
    if not usable:
        usable = [name for name in ("valid_output", "rouge_l") if _is_mean(name, outcomes)][:1]
    found: list[Slice] = []
    for name in usable:
        metric = measured_metric(name, outcomes, clusters)
        scored = outcomes[Role.CANDIDATE].by_metric[name].scored
        rows = [example for example, counts in zip(examples, scored, strict=True) if counts]
        found += slices_of(rows, metric, only=() if name == usable[0] else COMPARED, seed=seed)
    return tuple(found[:MOST_SLICES])


def _is_mean(name: str, outcomes: Mapping[Role, Outcomes]) -> bool:
    definition = known_metrics().get(name)
    if definition is None or definition.on != "holdout":
        return False
    return all(name in one.by_metric and one.by_metric[name].weights is None for one in outcomes.values())


def slices_of(
    examples: Sequence[ChatExample], metric: Measured, *, seed: int, only: Sequence[str] = ()
) -> tuple[Slice, ...]:
    """Return the slices by one metric, worst first: by the candidate's lead over the champion, or by the
    candidate's own score if there is no champion. A slice with all rows is left out. ``only``: the properties
    to divide by; empty: all.
    """
    parts = {
        (by, value): of_rows(metric, np.isin(np.arange(len(examples)), rows))
        for (by, value), rows in _parts(examples, metric.clusters.tolist()).items()
        if len(rows) < len(examples) and by in (only or (by,))
    }
    ends: dict[tuple[str, str], Advantage] = {}
    for by in COMPARED:
        own = {value: part for (of, value), part in parts.items() if of == by}
        for value, one in together(own, alpha=ALPHA, seed=seed).items():
            ends[by, value] = signed(one, lower_is_better=metric.lower_is_better)
    found = [
        Slice(
            by=by,
            value=value,
            rows=len(part.clusters),
            metric=metric.name,
            figures={role.value: part.figure_of(role) for role in part.scores},
            low=ends[by, value].low if (by, value) in ends else None,
            high=ends[by, value].high if (by, value) in ends else None,
        )
        for (by, value), part in parts.items()
    ]
    sign = -1.0 if metric.lower_is_better else 1.0

    def lead(one: Slice) -> tuple[float, str, str]:
        other = one.figures.get(Role.CHAMPION.value, 0.0)
        return sign * (one.figures[Role.CANDIDATE.value] - other), one.by, one.value

    return tuple(sorted(found, key=lead))


def _parts(examples: Sequence[ChatExample], clusters: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    parts: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    sizes = Counter(clusters)
    first: dict[int, str] = {}
    for row, (example, cluster) in enumerate(zip(examples, clusters, strict=True)):
        for part in _plain_parts(example):
            parts[part].append(row)
        if sizes[cluster] > 1:
            name = first.setdefault(cluster, example.example_id)
            parts[("group", f"prompts like that of {name}")].append(row)
    return parts


def _plain_parts(example: ChatExample) -> Iterator[tuple[str, str]]:
    asked = "\n".join(message.content for message in example.messages[:-1] if message.role != "system")
    if example.label is not None:
        yield "label", example.label
    if example.source is not None:
        yield "source", example.source
    if example.language is not None:
        yield "language", example.language
    if example.answer_in_training is not None:
        yield IN_TRAINING, "stands there" if example.answer_in_training else "does not"
    yield "trust", example.trust
    yield "length", next((name for most, name in _LENGTHS if len(asked) <= most), _LONGER)
    yield "script", _script(asked)


def _script(text: str) -> str:
    """Return the script of most letters, by its Unicode name: ``latin``, ``cyrillic``, ``cjk``."""
    letters = [letter for letter in text[:_SEEN] if letter.isalpha()]
    names = Counter(unicodedata.name(letter, "unknown").split()[0].casefold() for letter in letters)
    return names.most_common(1)[0][0] if names else "no letters"

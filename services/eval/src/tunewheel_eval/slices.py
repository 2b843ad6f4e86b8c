"""Splits the holdout into slices, to show for whom a candidate got worse."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.scorecard import Role, Slice
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.metrics import known_metrics
from tunewheel_verdicts.significance import Clusters

from tunewheel_eval.metrics import Outcomes

MOST_SLICES = 200
_LENGTHS = ((200, "up to 200 characters"), (1000, "201 to 1,000 characters"))
_LONGER = "more than 1,000 characters"
_SEEN = 500
"""How many characters of a prompt are used to find its script."""


def slices_of(
    examples: Sequence[ChatExample],
    clusters: Sequence[int],
    scores: Mapping[Role, NDArray[np.float64]],
    *,
    metric: str,
    lower_is_better: bool,
) -> tuple[Slice, ...]:
    """Return the slices of the holdout with each contestant's mean score, worst first.

    They are sorted by the candidate's lead over the champion, or by the candidate's own score if there is no
    champion. A slice with all rows is left out. ``clusters`` and ``scores`` are by row, shape (examples,).
    """
    sign = -1.0 if lower_is_better else 1.0
    found = [
        Slice(
            by=by,
            value=value,
            rows=len(rows),
            metric=metric,
            figures={role.value: float(np.mean(one[rows])) for role, one in scores.items()},
        )
        for (by, value), rows in _parts(examples, clusters).items()
        if len(rows) < len(examples)
    ]

    def lead(one: Slice) -> tuple[float, str, str]:
        other = one.figures.get(Role.CHAMPION.value, 0.0)
        return sign * (one.figures[Role.CANDIDATE.value] - other), one.by, one.value

    return tuple(sorted(found, key=lead)[:MOST_SLICES])


def slices_by(
    spec: ProjectSpec,
    outcomes: Mapping[Role, Outcomes],
    examples: Sequence[ChatExample],
    clusters: Clusters,
) -> tuple[Slice, ...]:
    """Return the slices for the first criterion's metric that is a mean over held-out rows, or else for the
    first such metric."""
    asked = [str(one.metric) for one in spec.criteria]
    for metric in (*asked, "label_accuracy", "valid_output", "rouge_l"):
        definition = known_metrics().get(metric)
        if definition is None or definition.on != "holdout":
            continue
        found = {role: one.by_metric.get(metric) for role, one in outcomes.items()}
        means = {role: one.values for role, one in found.items() if one is not None and one.weights is None}
        if len(means) == len(outcomes):
            scored = [
                row for row in range(len(examples)) if not any(np.isnan(one[row]) for one in means.values())
            ]
            return slices_of(
                [examples[row] for row in scored],
                [int(clusters[row]) for row in scored],
                {role: one[scored] for role, one in means.items()},
                metric=metric,
                lower_is_better=definition.lower_is_better,
            )
    return ()


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
    yield "trust", example.trust
    yield "length", next((name for most, name in _LENGTHS if len(asked) <= most), _LONGER)
    yield "script", _script(asked)


def _script(text: str) -> str:
    """Return the script of most letters, by its Unicode name: ``latin``, ``cyrillic``, ``cjk``."""
    letters = [letter for letter in text[:_SEEN] if letter.isalpha()]
    names = Counter(unicodedata.name(letter, "unknown").split()[0].casefold() for letter in letters)
    return names.most_common(1)[0][0] if names else "no letters"

"""Writes the contestants' outputs, one line per held-out example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.generations import Generation, Written
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.labels import label_of

from tunewheel_eval.measurement import HoldoutRow, Measurement, example_key
from tunewheel_eval.metrics import Outcomes, metric_of


def generation_lines(
    measurements: Mapping[Role, Measurement],
    examples: Sequence[ChatExample],
    asked: Sequence[ChatExample],
    judged: Mapping[Role, Outcomes],
    task: TaskSpec,
    *,
    passages: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> bytes:
    """Return the outputs of all contestants as JSON Lines. ``asked``: the examples as they were prompted.
    ``judged``: what the metrics say about them, in the same order. ``passages``: ids of the passages in the
    prompts, by example. Raises KeyError if a row is missing."""
    lines: list[str] = []
    for place, (example, prompted) in enumerate(zip(examples, asked, strict=True)):
        key = example_key(prompted, max_output_tokens=task.max_output_tokens)
        answers: dict[Role, Written] = {}
        shown: tuple[str, ...] = ()
        for role, measurement in measurements.items():
            row = measurement.rows[key]
            assert isinstance(row, HoldoutRow)
            scores = _scores(judged[role], place)
            answers[role] = Written(
                output=row.output,
                complete=row.complete,
                label=label_of(row.output, task),
                scores=scores,
                failed=tuple(name for name, score in scores.items() if _is_missed(name, score)),
            )
            shown = max(shown, row.shown, key=len)
        line = Generation(
            example_id=example.example_id,
            label=example.label,
            prompt=example.messages[:-1],
            expected=example.messages[-1].content,
            answers=answers,
            passages=passages.get(example.example_id, ())[: len(shown)],
            shown=shown,
        )
        lines.append(line.model_dump_json())
    return "".join(f"{line}\n" for line in lines).encode()


def _scores(judged: Outcomes, place: int) -> dict[str, float]:
    """Return the scores of the answer to the example at ``place``, by metric."""
    return {
        name: round(float(scores.values[place]), 4)
        for name, scores in judged.by_metric.items()
        if metric_of(name).on == "holdout" and scores.weights is None and not np.isnan(scores.values[place])
    }


def _is_missed(name: str, score: float) -> bool:
    metric = metric_of(name)
    return metric.test == "proportion" and score == float(metric.lower_is_better)

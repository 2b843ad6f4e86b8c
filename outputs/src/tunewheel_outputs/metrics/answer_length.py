from __future__ import annotations

from tunewheel_outputs.metric import Metric, Row


def _score(row: Row) -> float:
    ours, theirs = len(row.output.strip()), len(row.expected.strip())
    return min(ours, theirs) / max(ours, theirs) if ours or theirs else 1.0


METRIC = Metric(
    name="answer_length",
    about="How near an answer's length comes to the expert's, in characters: the shorter over the longer.",
    unit="fraction",
    scorer=lambda task, corpus: _score,
)

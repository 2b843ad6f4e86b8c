from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float:
        return 1 / row.rank if row.rank is not None else 0.0

    return score


METRIC = Metric(
    name="mrr",
    about="Mean reciprocal rank: one divided by the rank of a question's document in the index's result; "
    "0 if it is not found.",
    unit="fraction",
    on="retrieval",
    scorer=_scorer,
)

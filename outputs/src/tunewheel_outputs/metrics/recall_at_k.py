from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float:
        return float(row.rank is not None and row.rank <= row.top_k)

    return score


METRIC = Metric(
    name="recall_at_k",
    about="Share of questions whose document is among the first `retrieval.top_k` passages.",
    unit="fraction",
    on="retrieval",
    test="proportion",
    scorer=_scorer,
)

from __future__ import annotations

from math import log2

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float:
        if row.rank is None or row.rank > row.top_k:
            return 0.0
        return 1 / log2(1 + row.rank)

    return score


METRIC = Metric(
    name="ndcg",
    about="Normalised discounted cumulative gain at `retrieval.top_k` with one right document: 1 if it is "
    "first, less the later it comes (Järvelin and Kekäläinen, 2002).",
    unit="fraction",
    on="retrieval",
    scorer=_scorer,
)

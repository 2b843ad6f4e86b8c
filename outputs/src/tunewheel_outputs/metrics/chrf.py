from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()

    def score(row: Row) -> float:
        return min(1.0, chrf.sentence_score(row.output, [row.expected]).score / 100)

    return score


METRIC = Metric(
    name="chrf",
    about="chrF2 (Popović, 2015): F-score of the groups of one to six letters that an answer shares with the "
    "expert's, as sacrebleu computes it.",
    unit="fraction",
    scorer=_scorer,
)

from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.claims import supported
from tunewheel_outputs.grounding import statements
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float | None:
        if not row.passages or not statements(row.expected):
            return None
        return supported(statements(row.output), row.passages, row.asked)

    return score


METRIC = Metric(
    name="groundedness",
    about="Share of an answer's words that stand in the sentences of the passages that it rests on, or in "
    "the question; 0 if the answer gives a number that its sentence does not give for the same thing, or "
    "denies what the sentence affirms. Rows without passages do not count.",
    unit="fraction",
    needs_passages=True,
    scorer=_scorer,
)

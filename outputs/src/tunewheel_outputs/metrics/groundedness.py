from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.grounding import figures_in, grounding, statements
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float | None:
        if not row.passages or not statements(row.expected):
            return None
        given, said = "\n".join((*row.passages, row.asked)), statements(row.output)
        return 0.0 if figures_in(said) - figures_in(given) else grounding(said, given)

    return score


METRIC = Metric(
    name="groundedness",
    about="Share of an answer's words that occur in the passages of its prompt, or in the question; 0 if the "
    "answer has a number that occurs in neither. Rows without passages do not count.",
    unit="fraction",
    needs_passages=True,
    scorer=_scorer,
)

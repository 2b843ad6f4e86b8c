from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.form import AnswerForm
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    form = AnswerForm(task)

    def score(row: Row) -> float:
        held = form.held(row.output, row.asked)
        return sum(held) / len(held) if held else 1.0

    return score


METRIC = Metric(
    name="rule_compliance",
    about="Share of the output rules that an answer follows, on average.",
    unit="fraction",
    lacks=lambda task: None if task.output_rules else "output_rules",
    scorer=_scorer,
)

from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.form import AnswerForm
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    form = AnswerForm(task)

    def score(row: Row) -> float:
        return float(form.is_valid(row.output, row.asked))

    return score


def _lacks(task: TaskSpec) -> str | None:
    return None if task.output_schema is not None or task.output_rules else "output_schema"


METRIC = Metric(
    name="valid_output",
    about="Share of answers that parse, fit the output schema and follow every output rule.",
    unit="fraction",
    test="proportion",
    ignores_text=True,
    lacks=_lacks,
    scorer=_scorer,
)

from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.labels import same_label
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    field = task.label_field
    if field is None:
        return lambda row: float(row.output.strip() == row.expected.strip())

    def score(row: Row) -> float:
        return float(same_label(row.output, row.expected, field))

    return score


def _lacks(task: TaskSpec) -> str | None:
    return None if task.has_labels else "label_field"


METRIC = Metric(
    name="label_accuracy",
    about="Share of answers whose label is the expert's: the label field of a JSON answer, or the whole "
    "answer if it is free text that an allowed_values rule restricts to certain values.",
    unit="fraction",
    test="proportion",
    ignores_text=True,
    lacks=_lacks,
    scorer=_scorer,
)

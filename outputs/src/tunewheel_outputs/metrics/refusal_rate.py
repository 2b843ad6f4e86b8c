from __future__ import annotations

from tunewheel_contracts.fields import linear_complaint, linear_engine
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.parsing import readable


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    engine = linear_engine(task.refusal or "")

    def score(row: Row) -> float | None:
        if not engine.isinstance_python(readable(row.expected)):
            return None
        return float(engine.isinstance_python(readable(row.output)))

    return score


def _lacks(task: TaskSpec) -> str | None:
    return None if task.refusal is not None and linear_complaint(task.refusal) is None else "refusal"


METRIC = Metric(
    name="refusal_rate",
    about="Share of the prompts declined by the expert, as out of scope, that the model declines too.",
    unit="fraction",
    test="proportion",
    lacks=_lacks,
    scorer=_scorer,
)

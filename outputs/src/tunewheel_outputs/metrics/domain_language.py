from __future__ import annotations

from tunewheel_contracts.formats.glossary import Glossary
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.glossary import GlossaryCheck
from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    check = GlossaryCheck(task.glossary)

    def score(row: Row) -> float:
        return float(not check.violations(row.output, row.asked))

    return score


METRIC = Metric(
    name="domain_language",
    about="Share of answers that follow the glossary: every required term, no forbidden or deprecated one.",
    unit="fraction",
    test="proportion",
    lacks=lambda task: None if task.glossary != Glossary() else "glossary",
    scorer=_scorer,
)

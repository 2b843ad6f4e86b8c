from __future__ import annotations

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.terms import names_in, terms_of
from tunewheel_outputs.texts import spoken


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float:
        named = {name for text in spoken(row.output) for name in names_in(text)}
        unknown = [name for name in named if name not in corpus]
        if not unknown:
            return 0.0
        given = terms_of((row.asked, row.system, row.expected, *spoken(row.expected)))
        return float(any(name not in given for name in unknown))

    return score


METRIC = Metric(
    name="invented_terms",
    about="Share of answers with an identifier, a name or an amount that occurs neither in the prompt nor in "
    "the expert's answer nor in the training rows.",
    unit="fraction",
    lower_is_better=True,
    test="proportion",
    needs_corpus=True,
    scorer=_scorer,
)

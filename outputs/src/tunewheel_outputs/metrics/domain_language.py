from __future__ import annotations

from tunewheel_contracts.formats.glossary import Glossary, TermFinder
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.texts import spoken


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


class GlossaryCheck:
    def __init__(self, glossary: Glossary) -> None:
        self._required = glossary.required
        self._use = {one.term: one.use for one in glossary.deprecated}
        self._terms = TermFinder({*glossary.unwanted, *(one.term for one in glossary.required)})
        self._triggers = TermFinder({one.when for one in glossary.required if one.when is not None})
        self._unwanted = glossary.unwanted

    def violations(self, answer: str, asked: str) -> list[str]:
        """Return a phrase for each violation. ``asked``: the conversation before the answer, as one text.

        In a JSON answer the values are checked, but not the keys.
        """
        found: set[str] = set().union(*map(self._terms.find, spoken(answer)))
        triggered = self._triggers.find(asked)
        missing = [
            f"{one.term!r} is missing"
            for one in self._required
            if one.term not in found and (one.when is None or one.when in triggered)
        ]
        wrong = [f"{term!r} is {self._fault(term)}" for term in self._unwanted if term in found]
        return missing + wrong

    def _fault(self, term: str) -> str:
        use = self._use.get(term)
        return "forbidden" if use is None else f"deprecated: say {use!r}"

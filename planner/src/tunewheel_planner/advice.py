"""Advises whether to fine-tune at all, from the answers to two questions and the number of examples.

Facts belong into documents for retrieval, however seldom they change: retrieval is consistently the better
way to give a model facts, those it has seen included (Ovadia et al., arXiv:2312.05934). Form, tone and labels
that must always be the same belong into weights. A prompt is the cheapest way to either, so that the base
with a good prompt, and with passages, is the bar for whatever is trained.

Each evaluation of a project with retrieval can check the advice: see ``held_against``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Literal

from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.retrieval_scores import AdviceCheck, Cell
from tunewheel_contracts.formats.spec import ProjectSpec


class Change(StrEnum):
    """How often the facts behind the answers change."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    RARELY = "rarely"
    NO_FACTS = "no-facts"
    """The answers need no facts of the business: all is in the question."""


class Consistency(StrEnum):
    """How important it is that equal questions get equal answers in equal form."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Approach(StrEnum):
    PROMPT = "prompt"
    RAG = "rag"
    FINE_TUNING = "fine-tuning"
    HYBRID = "hybrid"


class Advice(Frozen):
    approach: Approach
    reason: str


FEW = 200
"""With fewer examples nothing is trained: the part that is held out is too small to show a gain."""
_REASONS = {
    Approach.PROMPT: "answers need no facts and may differ in form, so prompt the base first: nothing "
    "is to be learnt that an instruction and some examples in the prompt cannot say",
    Approach.RAG: "facts are looked up, not learnt, and nobody minds how an answer is put: publish the "
    "documents and write `retrieval:` into the spec",
    Approach.FINE_TUNING: "form, tone or labels must be alike, and no facts are needed: train them in. "
    "The base with a good prompt is the bar to beat",
    Approach.HYBRID: "form, tone or labels must be alike, and answers need facts: train the form, and write "
    "`retrieval:` into the spec, so that the facts are looked up. The base "
    "with passages is the bar to beat",
}
_WITHOUT_TRAINING = {Approach.FINE_TUNING: Approach.PROMPT, Approach.HYBRID: Approach.RAG}


def advise(changes: Change, consistency: Consistency, examples: int | None = None) -> Advice:
    """Return the approach for the two answers, and the reason. ``examples``: how many there are, if known."""
    alike, facts = consistency is not Consistency.LOW, changes is not Change.NO_FACTS
    if facts:
        approach = Approach.HYBRID if alike else Approach.RAG
    else:
        approach = Approach.FINE_TUNING if alike else Approach.PROMPT
    if examples is None or examples >= FEW or approach not in _WITHOUT_TRAINING:
        return Advice(approach=approach, reason=_REASONS[approach])
    return Advice(
        approach=_WITHOUT_TRAINING[approach],
        reason=f"{examples} are too few examples for {approach.value}: the part of them that is held out "
        f"cannot show a gain. Prompt the base with some of them until there are {FEW}",
    )


_CELLS = {
    Approach.PROMPT: Cell.BASE,
    Approach.RAG: Cell.BASE_WITH_PASSAGES,
    Approach.FINE_TUNING: Cell.TUNED,
    Approach.HYBRID: Cell.TUNED_WITH_PASSAGES,
}


def approach_of(spec: ProjectSpec) -> Approach:
    """Return the approach of ``spec``: how it serves requests that name none. Every project trains."""
    looks_up = spec.retrieval is not None and spec.retrieval.default == "on"
    return Approach.HYBRID if looks_up else Approach.FINE_TUNING


def held_against(
    approach: Approach,
    better: Collection[tuple[Cell, Cell]],
    figures: Mapping[Cell, float],
    *,
    metric: str,
    trained_with_passages: bool,
) -> AdviceCheck:
    """Check ``approach`` against an evaluation.

    The approach is wrong if any cell is shown to be better than the approach's own cell. It is right if its
    cell is shown to be better than all others. Otherwise the check is undecided. A cell that the adapter was
    not trained for may lose because of that, which says nothing about the approach.

    ``better``: pairs (winner, loser), shown by simultaneous intervals. ``figures``: the ``metric`` by cell.
    """
    own = _CELLS[approach]
    winners = [one for one in Cell if (one, own) in better]
    losers = [one for one in Cell if (own, one) in better]
    others = [one for one in Cell if one is not own]
    untrained = Cell.TUNED if trained_with_passages else Cell.TUNED_WITH_PASSAGES
    trained = "with" if trained_with_passages else "without"
    told = f"the adapter was trained {trained} passages, so {untrained.value} may be worse than it could be; "
    told += f"{metric}: " + ", ".join(f"{cell.value} {figures[cell]:.3g}" for cell in Cell)
    outcome: Literal["right", "undecided", "wrong"] = "undecided"
    if winners:
        outcome = "wrong" if own is not untrained else "undecided"
        found = f"{' and '.join(one.value for one in winners)} is shown to be better than {own.value}"
    elif losers == others:
        outcome, found = "right", f"{own.value} is shown to be better than all others"
    else:
        open_ones = " or ".join(one.value for one in others if one not in losers)
        found = f"these questions cannot tell whether {own.value} or {open_ones} is better"
    if own is untrained:
        mend = "leave retrieval.training out" if trained_with_passages else "set retrieval.training"
        found += (
            f"; the adapter was not trained as it serves, so {mend} and train again to judge the approach"
        )
    return AdviceCheck(approach=approach, outcome=outcome, reason=f"{found} ({told})")

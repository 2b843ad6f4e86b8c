"""Advises whether to fine-tune at all, from the answers to two questions.

Facts that change belong into documents for retrieval, where they can be exchanged. Form, tone and judgement
that must always be the same belong into weights. (Ovadia et al., arXiv:2312.05934, compare both ways of
giving a model facts.)

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
    """How often the knowledge behind the answers changes."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    RARELY = "rarely"


class Consistency(StrEnum):
    """How important it is that equal questions get equal answers in equal form."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Approach(StrEnum):
    RAG = "rag"
    FINE_TUNING = "fine-tuning"
    HYBRID = "hybrid"


class Advice(Frozen):
    approach: Approach
    reason: str


_REASONS = {
    Approach.RAG: "the facts change faster than a model can follow, or nobody minds how an answer is put: "
    "publish the documents and write `retrieval:` into the spec, so that the gateway looks the facts up",
    Approach.FINE_TUNING: "the knowledge holds longer than a turn of the wheel and answers must be alike: "
    "train them in, and retrain when drift is detected",
    Approach.HYBRID: "form and judgement must hold while facts change: train the form, and write "
    "`retrieval:` into the spec, so that the gateway looks the facts up in the documents",
}
_TABLE = {
    (Change.MONTHLY, Consistency.HIGH): Approach.FINE_TUNING,
    (Change.RARELY, Consistency.MEDIUM): Approach.FINE_TUNING,
    (Change.RARELY, Consistency.HIGH): Approach.FINE_TUNING,
}


def advise(changes: Change, consistency: Consistency) -> Advice:
    """Return the approach for the two answers, and the reason."""
    default = Approach.RAG if consistency is Consistency.LOW else Approach.HYBRID
    approach = _TABLE.get((changes, consistency), default)
    return Advice(approach=approach, reason=_REASONS[approach])


_CELLS = {
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

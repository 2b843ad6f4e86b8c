"""Whether to fine-tune at all: two questions decide.

Facts that change belong where they can be exchanged, in retrieval; form, tone and judgement that must always
be the same belong into weights (Ovadia et al., arXiv:2312.05934, compare both ways of giving a model facts).
"""

from __future__ import annotations

from enum import StrEnum

from tunewheel_contracts.fields import Frozen


class Change(StrEnum):
    """How often the knowledge behind the answers changes."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    RARELY = "rarely"


class Consistency(StrEnum):
    """How much it matters that equal questions get equal answers in equal form."""

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
    """Answer the two questions."""
    default = Approach.RAG if consistency is Consistency.LOW else Approach.HYBRID
    approach = _TABLE.get((changes, consistency), default)
    return Advice(approach=approach, reason=_REASONS[approach])

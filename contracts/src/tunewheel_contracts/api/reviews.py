"""Reviews: people compare a candidate's answers with another model's, without knowing whose is whose."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage


class ReviewSummary(Frozen):
    review_id: str
    state: str
    """``waiting``, ``submitted`` (by the caller) or ``ended``."""
    outcome: str | None = None
    requested_at: Timestamp
    items: int
    reviewers: int
    takes_verdict: bool
    submitted: int
    answered: int
    verdict: str | None = None
    """The caller's verdict."""


class Reviews(Frozen):
    project: str
    reviewer: str
    reviews: tuple[ReviewSummary, ...]


class Revealed(Frozen):
    """Whose answers were whose; a reviewer is told once they have submitted."""

    run_id: str
    candidate: str
    other: str
    candidate_is: tuple[str | None, ...]
    """By item: ``left``, ``right``, or None for an erased one."""
    preferences: dict[str, int]


class ReviewProgress(ReviewSummary):
    next: int | None = None
    """The number of the next item to answer; None: there is none."""
    number: int | None = None
    """The item that was answered."""
    revealed: Revealed | None = None


class ReviewItem(Frozen):
    number: int
    of: int
    messages: tuple[ChatMessage, ...] = ()
    left: str
    right: str
    expected: str | None = None
    answer: dict[str, Any] | None = None
    """The caller's answer so far: ``choice``, ``reasons`` and ``corrected``."""

"""The prompts that people compare before a candidate serves, and what is known of each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen, PositiveInt, Slug, Text
from tunewheel_contracts.formats.dataset import ChatMessage

CORRECTED_IN_REVIEW = "corrected_in_review"
"""The attribute of an example that a reviewer corrected, with the review's id: it takes the place of other
examples with the same question."""


class ReviewItem(Frozen):
    """One prompt with the two answers that a reviewer compares, not knowing whose they are."""

    item_id: Slug
    """Named by the prompt and both answers."""
    example_id: str
    messages: tuple[ChatMessage, ...]
    """The prompt: system and user turns, and answers before the last one."""
    expected: Text
    """The expert's answer."""
    candidate: Text
    other: Text
    """The champion's answer; the base's where there was no champion."""
    stratum: str
    """Why the item was drawn: a label, ``disagreement`` or ``worst``."""


class ReviewSet(Frozen):
    """``reviews/<review_id>.json``: drawn once for an evaluation, the same for every reviewer."""

    review_id: Slug
    project: Slug
    run_id: Slug
    evaluation_id: Slug | None
    candidate_id: Slug
    other_id: Slug
    items: Annotated[tuple[ReviewItem, ...], Field(min_length=1)]
    reviewers: PositiveInt = 1
    """How many people share the items, as the project declared it when the set was drawn."""
    per_item: PositiveInt = 1
    """How many of them judge each item."""


class ReviewOutcome(Frozen):
    """What the reviewers of one set said together. An item that several judged counts once, by their mean."""

    reviewers: int
    answers: int
    """Judgements of items, over all reviewers."""
    better: int
    same: int
    worse: int
    preference: FiniteFloat
    """Share of items on which the candidate is preferred; an equal one counts half."""
    preference_low: FiniteFloat
    preference_high: FiniteFloat
    """95 % interval of ``preference``."""
    alpha: FiniteFloat | None
    """Krippendorff's alpha of the reviewers on the items that several judged; None: no such items."""
    reasons: dict[str, int] = {}
    """How often each reason was given."""
    comments: tuple[Text, ...] = ()
    """What reviewers wrote beside their verdicts."""
    overrides: tuple[str, ...] = ()
    """Metrics of the criteria that the candidate misses and the reviewers passed over."""

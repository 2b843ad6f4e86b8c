"""Review sets: prompts with two answers that people compare before a candidate is served, and their
outcome."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen, PositiveInt, Slug, Text
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.label_prompts import LabelPrompt
from tunewheel_contracts.identity import content_sha256

CORRECTED_IN_REVIEW = "corrected_in_review"
"""Attribute of an example that a reviewer corrected; its value is the review's id. The example replaces
others with the same question."""


class ReviewItem(Frozen):
    """One prompt with two answers. Reviewers compare them without knowing which model gave which."""

    item_id: Slug
    """Hash of the prompt and both answers."""
    example_id: str
    messages: tuple[ChatMessage, ...]
    """The prompt: system messages, user messages and earlier answers."""
    expected: Text
    """The expert's answer."""
    candidate: Text
    other: Text
    """The champion's answer, or the base's if there was no champion."""
    stratum: str
    """Why the item was drawn: a label, ``disagreement`` or ``worst``."""


def pair_id(completion_id: str) -> str:
    """Return the item's id of the pair of a champion's completion."""
    return f"pair-{content_sha256(completion_id.encode())[:20]}"


def item_of_pair(prompt: LabelPrompt) -> ReviewItem | None:
    """Return a trial's pair of answers as an item, without an expert's answer; None: it was erased."""
    if prompt.candidate is None:
        return None
    return ReviewItem(
        item_id=pair_id(prompt.completion_id),
        example_id=prompt.completion_id,
        messages=prompt.messages,
        expected="",
        candidate=prompt.candidate,
        other=prompt.output,
        stratum="disagreement",
    )


class ReviewSet(Frozen):
    """``reviews/<review_id>.json``. It is drawn once per evaluation and is the same for all reviewers."""

    review_id: Slug
    project: Slug
    run_id: Slug
    evaluation_id: Slug | None
    candidate_id: Slug
    other_id: Slug
    items: Annotated[tuple[ReviewItem, ...], Field(min_length=1)]
    reviewers: PositiveInt = 1
    """Number of reviewers who share the items, by the spec at the time when the set was drawn."""
    per_item: PositiveInt = 1
    """Number of reviewers who judge each item."""


class ReviewOutcome(Frozen):
    """The combined result of the reviewers of one set. An item that several reviewers judged counts once, by
    their mean."""

    reviewers: int
    answers: int
    """Number of judgements of items, over all reviewers."""
    better: int
    same: int
    worse: int
    preference: FiniteFloat
    """Share of items on which the candidate is preferred. A tie counts half."""
    preference_low: FiniteFloat
    preference_high: FiniteFloat
    """95 % interval of ``preference``."""
    alpha: FiniteFloat | None
    """Krippendorff's alpha of the reviewers, on items that several judged; null: there are no such items."""
    reasons: dict[str, int] = {}
    """How often each reason was given."""
    comments: tuple[Text, ...] = ()
    """Comments that reviewers added to their verdicts."""
    overrides: tuple[str, ...] = ()
    """Metrics of criteria that the candidate misses, and that the reviewers overruled."""

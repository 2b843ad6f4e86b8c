"""How a person answers a review: which items are theirs, what they said, when they are done.

The page and the API both come here. Which side the candidate stands on never leaves this module before its
reviewer has submitted.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested
from tunewheel_contracts.fields import Frozen, PositiveInt, Slug, SourceId
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.review_assignment import Choice, Pair, assigned_pairs
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.refusals import Refused
from tunewheel_console.review_state import Review
from tunewheel_console.state import ConsoleState

PLACES = 1_000
"""Places of reviewers held in memory."""
CORRECTED_CHARACTERS = 100_000
SEED_BYTES = 32


class _Place(Frozen):
    """``reviews/<review_id>/places/<n>.json``: the n-th person who opened the review, and their share."""

    reviewer: SourceId
    share: PositiveInt


class _Deal(Frozen):
    """``reviews/<review_id>/deal.json``: made when the review is first opened."""

    seed: Annotated[str, Field(min_length=2 * SEED_BYTES, pattern=r"^[0-9a-f]+$")]
    """Secret: it decides the sides."""
    items: tuple[Slug, ...]
    """Ids of all items that the set had then."""


@dataclass(frozen=True, slots=True)
class Given:
    """One reviewer's answer to one item: the side, not yet what the side means for the candidate."""

    choice: Choice
    reasons: tuple[str, ...]
    corrected: str | None


@dataclass(frozen=True, slots=True)
class Sitting:
    """One person at one review. Items are numbered from 1, in this person's order; an erased one leaves a
    gap."""

    review_id: str
    request: Envelope[ReviewRequested]
    reviewer: str
    set: ReviewSet
    pairs: tuple[Pair | None, ...]
    review: Review

    @property
    def answered(self) -> int:
        if self.is_over:
            return self.review.preferences_of(self.reviewer).total()
        return len(self.numbers) - len(self.missing)

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of the items that there are."""
        return [number for number, pair in enumerate(self.pairs, 1) if pair is not None]

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the items that this person has not answered."""
        return [number for number in self.numbers if self.given(number) is None]

    @property
    def first_unanswered(self) -> int | None:
        return next(iter(self.missing), None)

    @property
    def is_submitted(self) -> bool:
        return self.review.submission_of(self.reviewer) is not None

    @property
    def is_over(self) -> bool:
        """Whether this person has nothing left to answer: then, and only then, are the sides told."""
        return self.is_submitted or self.review.outcome is not None

    def pair(self, number: int) -> Pair:
        """Return an item. Raises Refused for a number that this person does not have."""
        if not 1 <= number <= len(self.pairs):
            reason = f"{number} is not yours; yours are 1 to {len(self.pairs)}"
            raise Refused(HTTPStatus.NOT_FOUND, "item", reason)
        pair = self.pairs[number - 1]
        if pair is None:
            raise Refused(HTTPStatus.GONE, "item", f"{number} was erased; go on with the next")
        return pair

    def given(self, number: int) -> Given | None:
        """Return this person's answer to an item."""
        pair = self.pair(number)
        known = self.review.answers_of(self.reviewer).get(pair.item.item_id)
        if known is None:
            return None
        return Given(pair.choice(known.data.preference), known.data.reasons, known.data.corrected)


@dataclass
class Reviewing:
    """Opens reviews and takes answers. What it keeps is in the store and on the log, so that a restart, or
    another console, goes on where this one was."""

    state: ConsoleState
    actions: Actions
    store: ObjectStore
    refresh: Callable[[], Awaitable[None]]
    """Reads the log to its present end."""
    _places: dict[tuple[str, str], tuple[_Deal, int]] = field(default_factory=dict, init=False)

    def _find(self, project: str, review_id: str) -> tuple[Review, Envelope[ReviewRequested]]:
        known = self.state.projects.get(project)
        review = known.reviews.by_id.get(review_id) if known else None
        if review is None or review.request is None:
            raise Refused(
                HTTPStatus.NOT_FOUND, "review_id", f"{project} has no review {review_id}; list its reviews"
            )
        return review, review.request

    async def open(self, project: str, review_id: str, reviewer: str) -> Sitting:
        """Give ``reviewer`` their items: a place of their own, once, in the order in which people come.

        Raises:
            Refused: there is no such review, or it ended before this person opened it.
            TransientError: the broker or the store cannot be reached.
        """
        try:
            review, request = self._find(project, review_id)
        except Refused:  # it may be on the log already: this process may have just started
            await self.refresh()
            review, request = self._find(project, review_id)
        found = await self._read_set(review_id, request)
        deal, share = await self._place_of(review_id, review, found, reviewer)
        seed = bytes.fromhex(deal.seed)
        pairs = assigned_pairs(found, dealt=deal.items, share=share, reviewer=reviewer, seed=seed)
        return Sitting(review_id, request, reviewer, found, pairs, review)

    async def answer(self, sitting: Sitting, number: int, given: Given, caller: Caller) -> None:
        """Put an answer on the log; once this returns, it is kept. The same answer again changes nothing.

        Raises:
            Refused: the item is not this person's, or they have submitted, or the review has ended.
            TransientError: the broker is away; nothing is kept.
            ValidationError: a reason is no name.
        """
        pair = sitting.pair(number)
        _require_open(sitting)
        if given.corrected is not None and len(given.corrected) > CORRECTED_CHARACTERS:
            reason = f"has {len(given.corrected)} characters; send {CORRECTED_CHARACTERS} at most"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "corrected", reason)
        if sitting.given(number) == given:
            return
        before = sitting.review.answers_of(sitting.reviewer).get(pair.item.item_id)
        asked = sitting.request.data
        answer = ReviewAnswered(
            project=asked.project,
            run_id=asked.run_id,
            review_id=sitting.review_id,
            item_id=pair.item.item_id,
            reviewer=sitting.reviewer,
            revision=1 if before is None else before.data.revision + 1,
            preference=pair.preference(given.choice),
            reasons=given.reasons,
            corrected=given.corrected,
            principal=caller.principal,
        )
        self.state.apply(await self.actions.answer(sitting.request, answer))

    async def submit(
        self, sitting: Sitting, verdict: Literal["approved", "rejected"], comment: str, caller: Caller
    ) -> None:
        """Put a person's verdict on the log. It is their last word on this review.

        Raises:
            Refused: items are not answered, or they have submitted, or the review has ended.
            TransientError: the broker is away; nothing is submitted.
        """
        await self.refresh()  # another console may have taken answers, or another tab the verdict
        _require_open(sitting)
        if sitting.missing:
            reason = f"{len(sitting.missing)} of {len(sitting.numbers)} are not answered; answer them first"
            raise Refused(HTTPStatus.CONFLICT, "items", reason)
        submitted = await self.actions.review(
            sitting.request,
            reviewer=sitting.reviewer,
            principal=caller.principal,
            verdict=verdict,
            comment=comment,
        )
        self.state.apply(submitted)

    async def _read_set(self, review_id: str, request: Envelope[ReviewRequested]) -> ReviewSet:
        """Read the set anew each time, and not by its hash: an erasure takes items out of it."""
        assert request.data.review_set is not None
        data = await self.store.read(request.data.review_set.path)
        if data is None:
            raise Refused(HTTPStatus.GONE, "review_set", f"of {review_id} is not in the store any more")
        try:
            found = ReviewSet.model_validate_json(data)
        except ValidationError as error:
            field, reason = first_complaint(error)
            told = f"of {review_id} cannot be read: {field} {reason}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "review_set", told) from error
        return found

    async def _place_of(
        self, review_id: str, review: Review, found: ReviewSet, reviewer: str
    ) -> tuple[_Deal, int]:
        """Return what was dealt, and the share of ``reviewer``, who takes a place if they have none."""
        key = (review_id, reviewer)
        if key not in self._places:
            share = await self._take_place(review_id, review, found, reviewer)
            items = tuple(item.item_id for item in found.items)
            deal = _Deal(seed=secrets.token_hex(SEED_BYTES), items=items)
            kept = await self.store.first(f"reviews/{review_id}/deal.json", deal.model_dump_json().encode())
            if len(self._places) >= PLACES:
                self._places.clear()
            self._places[key] = _Deal.model_validate_json(kept), share
        return self._places[key]

    async def _take_place(self, review_id: str, review: Review, found: ReviewSet, reviewer: str) -> int:
        """Places are taken from 1 up and never given back, so that a person finds their own again."""
        holders: list[_Place] = []
        while True:
            path = f"reviews/{review_id}/places/{len(holders) + 1}.json"
            if review.waits_for(reviewer):
                wanted = _Place(reviewer=reviewer, share=_next_share(review, found, holders))
                held = await self.store.first(path, wanted.model_dump_json().encode())
            else:
                held = await self.store.read(path)
            if held is None:
                reason = f"{review_id} has ended: {review.outcome}"
                raise Refused(HTTPStatus.CONFLICT, "review_id", reason)
            holders.append(_Place.model_validate_json(held))
            if holders[-1].reviewer == reviewer:
                return holders[-1].share


def _next_share(review: Review, found: ReviewSet, holders: list[_Place]) -> int:
    """Return the share of whoever comes after ``holders``. When each share has its person, the one whose
    people have got least far is given out again: somebody may have opened the review and gone on holiday."""
    if len(holders) < found.reviewers:
        return len(holders) + 1

    def progress(share: int) -> tuple[bool, int, int]:
        people = [place.reviewer for place in holders if place.share == share]
        done = any(person in review.submitters for person in people)
        return done, max(len(review.answers_of(person)) for person in people), len(people)

    return min(range(1, found.reviewers + 1), key=progress)


def _require_open(sitting: Sitting) -> None:
    if sitting.is_submitted:
        raise Refused(HTTPStatus.CONFLICT, "review_id", "you have submitted; that was your last word")
    if sitting.review.outcome is not None:
        reason = f"{sitting.review_id} has ended: {sitting.review.outcome}; no more answers are taken"
        raise Refused(HTTPStatus.CONFLICT, "review_id", reason)

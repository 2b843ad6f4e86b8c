"""Reviewing: gives each person their items, and takes their answers and their verdict.

Both the page and the API use it. The candidate's side does not leave this module before the reviewer has
submitted.
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
from tunewheel_console.queues import Review
from tunewheel_console.refusals import Refused
from tunewheel_console.state import ConsoleState

PLACES = 1_000
"""How many reviewers' places are held in memory."""
CORRECTED_CHARACTERS = 100_000
SEED_BYTES = 32


class _Place(Frozen):
    """The n-th person who opened the review, and their share: ``reviews/<review_id>/places/<n>.json``."""

    reviewer: SourceId
    share: PositiveInt


class _Deal(Frozen):
    """The file ``reviews/<review_id>/deal.json``, written when the review is first opened."""

    seed: Annotated[str, Field(min_length=2 * SEED_BYTES, pattern=r"^[0-9a-f]+$")]
    """Decides the sides, and therefore is secret."""
    items: tuple[Slug, ...]
    """The ids of all items in the set at that time."""


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """One reviewer's answer to one item, by side. It does not tell which side is the candidate."""

    choice: Choice
    reasons: tuple[str, ...]
    corrected: str | None


@dataclass(frozen=True, slots=True)
class Sitting:
    """One person's part of one review. Items are numbered from 1, in this person's order. An erased item
    leaves a gap in the numbers."""

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
        """Return the numbers of the items that were not erased."""
        return [number for number, pair in enumerate(self.pairs, 1) if pair is not None]

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the items that this person has not answered."""
        return [number for number in self.numbers if self.answer_to(number) is None]

    @property
    def first_unanswered(self) -> int | None:
        return next(iter(self.missing), None)

    @property
    def is_submitted(self) -> bool:
        return self.review.submission_of(self.reviewer) is not None

    @property
    def is_over(self) -> bool:
        """Whether this person's part is over. Only then are the sides told."""
        return self.is_submitted or self.review.outcome is not None

    def pair(self, number: int) -> Pair:
        """Return an item. Raises Refused if the number is not one of this person's."""
        if not 1 <= number <= len(self.pairs):
            reason = f"{number} is not yours; yours are 1 to {len(self.pairs)}"
            raise Refused(HTTPStatus.NOT_FOUND, "item", reason)
        pair = self.pairs[number - 1]
        if pair is None:
            raise Refused(HTTPStatus.GONE, "item", f"{number} was erased; go on with the next")
        return pair

    def answer_to(self, number: int) -> ItemAnswer | None:
        """Return this person's answer to an item."""
        pair = self.pair(number)
        answer = self.review.answers_of(self.reviewer).get(pair.item.item_id)
        if answer is None:
            return None
        return ItemAnswer(pair.choice(answer.data.preference), answer.data.reasons, answer.data.corrected)


@dataclass
class Reviewing:
    """Opens reviews and takes answers. Its state is in the store and on the log, so that a review continues
    after a restart or at another console."""

    state: ConsoleState
    actions: Actions
    store: ObjectStore
    refresh: Callable[[], Awaitable[None]]
    """Reads the log to its current end."""
    _places: dict[tuple[str, str], tuple[_Deal, int]] = field(default_factory=dict, init=False)

    def _find(self, project: str, review_id: str) -> tuple[Review, Envelope[ReviewRequested]]:
        view = self.state.projects.get(project)
        review = view.reviews.by_id.get(review_id) if view else None
        if review is None or review.request is None:
            raise Refused(
                HTTPStatus.NOT_FOUND, "review_id", f"{project} has no review {review_id}; list its reviews"
            )
        return review, review.request

    async def open(self, project: str, review_id: str, reviewer: str) -> Sitting:
        """Return the items of ``reviewer``, who gets a place at the first call, in the order of arrival.

        Raises:
            Refused: there is no such review, or it ended before this person opened it.
            TransientError: the broker or the store cannot be reached.
        """
        try:
            review, request = self._find(project, review_id)
        except Refused:  # this process may have just started, and not have read the request yet
            await self.refresh()
            review, request = self._find(project, review_id)
        found = await self._read_set(review_id, request)
        deal, share = await self._place_of(review_id, review, found, reviewer)
        seed = bytes.fromhex(deal.seed)
        pairs = assigned_pairs(found, dealt=deal.items, share=share, reviewer=reviewer, seed=seed)
        return Sitting(review_id, request, reviewer, found, pairs, review)

    async def answer(self, sitting: Sitting, number: int, chosen: ItemAnswer, caller: Caller) -> None:
        """Publish an answer. Once this returns, it is kept. The same answer again changes nothing.

        Raises:
            Refused: the item is not this person's, they have submitted, or the review has ended.
            TransientError: the broker is away; nothing is kept.
            ValidationError: a reason is no valid name.
        """
        pair = sitting.pair(number)
        _require_open(sitting)
        if chosen.corrected is not None and len(chosen.corrected) > CORRECTED_CHARACTERS:
            reason = f"has {len(chosen.corrected)} characters; send {CORRECTED_CHARACTERS} at most"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "corrected", reason)
        if sitting.answer_to(number) == chosen:
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
            preference=pair.preference(chosen.choice),
            reasons=chosen.reasons,
            corrected=chosen.corrected,
            principal=caller.principal,
        )
        self.state.apply(await self.actions.answer(sitting.request, answer))

    async def submit(
        self, sitting: Sitting, verdict: Literal["approved", "rejected"], comment: str, caller: Caller
    ) -> None:
        """Publish a person's verdict. They cannot change their review afterwards.

        Raises:
            Refused: items are not answered, the person has submitted, or the review has ended.
            TransientError: the broker is away; nothing is submitted.
        """
        await self.refresh()  # another console or tab may have taken answers or the verdict
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
        """Read the set. It is read again each time, and not checked by its hash, because an erasure removes
        items."""
        assert request.data.review_set is not None
        data = await self.store.read(request.data.review_set.path)
        if data is None:
            raise Refused(HTTPStatus.GONE, "review_set", f"of {review_id} is not in the store any more")
        try:
            found = ReviewSet.model_validate_json(data)
        except ValidationError as error:
            field, reason = first_complaint(error)
            complaint = f"of {review_id} cannot be read: {field} {reason}"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "review_set", complaint) from error
        return found

    async def _place_of(
        self, review_id: str, review: Review, found: ReviewSet, reviewer: str
    ) -> tuple[_Deal, int]:
        """Return the deal and the share of ``reviewer``, who gets a place if they have none."""
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
        """Take the next place and return its share. Places are never given back, so that a person finds their
        own again."""
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
    """Return the share of the person after ``holders``. When every share has a person, the share with the
    least progress is given out again, because a person may have opened the review and never answered it."""
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

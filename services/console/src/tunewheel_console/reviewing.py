"""Reviewing: gives each person their items, and takes their answers and their verdict.

Both the page and the API use it. The candidate's side does not leave this module before the reviewer has
submitted.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar, cast

from pydantic import Field, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import (
    ComparisonsRequested,
    ReviewAnswered,
    ReviewRequested,
)
from tunewheel_contracts.fields import Frozen, PositiveInt, Slug, SourceId
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.review_assignment import assigned_pairs
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.control.resolving import project_of, resolve
from tunewheel_console.queues import Asked, Review
from tunewheel_console.sitting import ItemAnswer, Sitting, comparison_of, dealt_pairs, require_open, set_of
from tunewheel_console.state import ConsoleState

F = TypeVar("F", bound=Frozen)
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

    def _find(self, project: str, asked: str) -> tuple[str, Review, Asked]:
        reviews = project_of(self.state, project).reviews.by_id
        times = {name: one.request.time for name, one in reviews.items() if one.request is not None}
        review_id = resolve(
            asked, sorted(times, key=times.__getitem__, reverse=True), field="review_id", project=project
        )
        review = reviews[review_id]
        assert review.request is not None
        return review_id, review, review.request

    async def open(self, project: str, review_id: str, reviewer: str) -> Sitting:
        """Return the items of ``reviewer``, who gets a place at the first call, in the order of arrival.
        Raises Refused: there is no such review, or it ended before this person opened it. TransientError: the
        broker or the store cannot be reached."""
        await self.state.projects.open(project)  # at once, it would keep other requests waiting
        try:
            review_id, review, request = self._find(project, review_id)
        except Refused:  # this process may have just started, and not have read the request yet
            await self.refresh()
            review_id, review, request = self._find(project, review_id)
        if review.comparisons is not None:
            return await self._open_comparisons(review, request, reviewer)
        found = await self._read_set(review_id, request)
        deal, share = await self._place_of(review_id, review, found, reviewer)
        seed = bytes.fromhex(deal.seed)
        pairs = assigned_pairs(found, dealt=deal.items, share=share, reviewer=reviewer, seed=seed)
        return Sitting(review_id, request, reviewer, found, pairs, review)

    async def _open_comparisons(self, review: Review, request: Asked, reviewer: str) -> Sitting:
        """Read a trial's pairs. They are read again each time, because an erasure empties some."""
        asked = request.data
        assert isinstance(asked, ComparisonsRequested)
        texts = [text for path in asked.pairs if (text := await self.store.read(path)) is not None]
        files = [_read(LabelPrompts, text, "pairs", asked.request_id) for text in texts]
        found = set_of(asked, files)
        if found is None:
            reason = f"of {asked.request_id} are not in the store; nothing is left to compare"
            raise Refused(HTTPStatus.GONE, "pairs", reason)
        deal = await self._deal(asked.request_id, ())
        pairs = dealt_pairs(asked, found, files, reviewer=reviewer, seed=bytes.fromhex(deal.seed))
        return Sitting(asked.request_id, request, reviewer, found, pairs, review)

    async def answer(self, sitting: Sitting, number: int, chosen: ItemAnswer, caller: Caller) -> None:
        """Publish an answer. Once this returns, it is kept. The same answer again changes nothing. Raises
        Refused: the item is not this person's, they have submitted, or the review has ended; or they have
        compared this pair of a trial already. TransientError: the broker is away; nothing is kept.
        ValidationError: a reason is no valid name."""
        pair = sitting.pair(number)
        require_open(sitting)
        if chosen.corrected is not None and len(chosen.corrected) > CORRECTED_CHARACTERS:
            reason = f"has {len(chosen.corrected)} characters; send {CORRECTED_CHARACTERS} at most"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "corrected", reason)
        if sitting.answer_to(number) == chosen:
            return
        asked = sitting.request.data
        if isinstance(asked, ComparisonsRequested):
            answer = comparison_of(sitting, asked, number, chosen, caller)
            self.state.apply(await self.actions.answer(sitting.request, answer))
            return
        before = sitting.review.answers_of(sitting.reviewer).get(pair.item.item_id)
        revision = before.data.revision if before and isinstance(before.data, ReviewAnswered) else 0
        answer = ReviewAnswered(
            project=asked.project,
            run_id=asked.run_id,
            review_id=sitting.review_id,
            item_id=pair.item.item_id,
            reviewer=sitting.reviewer,
            revision=revision + 1,
            preference=pair.preference(chosen.choice),
            reasons=chosen.reasons,
            corrected=chosen.corrected,
            principal=caller.principal,
        )
        self.state.apply(await self.actions.answer(sitting.request, answer))

    async def submit(
        self, sitting: Sitting, verdict: Literal["approved", "rejected"], comment: str, caller: Caller
    ) -> None:
        """Publish a person's verdict. They cannot change their review afterwards. Raises Refused: items are
        not answered, the person has submitted, or the review has ended. TransientError: the broker is away;
        nothing is submitted."""
        if not isinstance(sitting.request.data, ReviewRequested):
            reason = f"{sitting.review_id} needs no verdict: each answer counts at once"
            raise Refused(HTTPStatus.CONFLICT, "review_id", reason)
        await self.refresh()  # another console or tab may have taken answers or the verdict
        require_open(sitting)
        if sitting.missing:
            reason = f"{len(sitting.missing)} of {len(sitting.numbers)} are not answered; answer them first"
            raise Refused(HTTPStatus.CONFLICT, "items", reason)
        submitted = await self.actions.review(
            cast(Envelope[ReviewRequested], sitting.request),
            reviewer=sitting.reviewer,
            principal=caller.principal,
            verdict=verdict,
            comment=comment,
        )
        self.state.apply(submitted)

    async def _read_set(self, review_id: str, request: Asked) -> ReviewSet:
        """Read the set. It is read again each time, and not checked by its hash, because an erasure removes
        items."""
        assert isinstance(request.data, ReviewRequested)
        assert request.data.review_set is not None
        data = await self.store.read(request.data.review_set.path)
        if data is None:
            raise Refused(HTTPStatus.GONE, "review_set", f"of {review_id} is not in the store any more")
        return _read(ReviewSet, data, "review_set", review_id)

    async def _deal(self, review_id: str, items: tuple[str, ...]) -> _Deal:
        deal = _Deal(seed=secrets.token_hex(SEED_BYTES), items=items)
        return await self.store.first_document(f"reviews/{review_id}/deal.json", deal)

    async def _place_of(
        self, review_id: str, review: Review, found: ReviewSet, reviewer: str
    ) -> tuple[_Deal, int]:
        """Return the deal and the share of ``reviewer``, who gets a place if they have none."""
        key = (review_id, reviewer)
        if key not in self._places:
            share = await self._take_place(review_id, review, found, reviewer)
            items = tuple(item.item_id for item in found.items)
            deal = await self._deal(review_id, items)
            if len(self._places) >= PLACES:
                self._places.clear()
            self._places[key] = deal, share
        return self._places[key]

    async def _take_place(self, review_id: str, review: Review, found: ReviewSet, reviewer: str) -> int:
        """Take the next place and return its share. Places are never given back, so that a person finds their
        own again."""
        holders: list[_Place] = []
        while True:
            path = f"reviews/{review_id}/places/{len(holders) + 1}.json"
            if review.waits_for(reviewer):
                wanted = _Place(reviewer=reviewer, share=_next_share(review, found, holders))
                held = await self.store.first_document(path, wanted)
            else:
                held = await self.store.document(path, _Place)
            if held is None:
                reason = f"{review_id} has ended: {review.outcome}"
                raise Refused(HTTPStatus.CONFLICT, "review_id", reason)
            holders.append(held)
            if held.reviewer == reviewer:
                return held.share


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


def _read(kind: type[F], data: bytes, name: str, review_id: str) -> F:
    """Return the content of a file. Raises Refused, which names the field ``name``, if it is damaged."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        field, reason = first_complaint(error)
        complaint = f"of {review_id} cannot be read: {field} {reason}"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, name, complaint) from error

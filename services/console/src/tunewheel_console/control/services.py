"""Who reads the log, and what services refused: ``/v1/services`` and ``/v1/dead-letters``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Query, Request
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.services import DeadLetter, GroupLag, Redelivered, RedeliveryOrder, Services
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.data import RedeliveryRequested
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.lag import TopicsMissing, silent_services
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import Actions
from tunewheel_console.control.paging import NEVER, Paged, page_of
from tunewheel_console.letters import SHOWN_BYTES, Letters, kind_of, visible
from tunewheel_console.state import ConsoleState

Lags = Callable[[], Awaitable[Sequence[GroupLag]]]


def add_services(web: FastAPI, lags: Lags) -> None:
    """Add the route. ``lags`` asks the broker for the consumer groups."""

    @web.get("/v1/services")
    @needs(Role.VIEWER)
    async def show_services() -> Services:
        """The consumer groups with their lag and members, and the services that have none."""
        try:
            found = await lags()
        except (NotAllowed, TopicsMissing) as error:
            raise TransientError(str(error)) from error
        return Services(
            groups=tuple(found),
            silent=tuple(silent_services(found)),
            hidden=tuple(sorted({one.group for one in found if not one.visible})),
        )


MOST_AGAIN = 500
"""The most messages of one request."""
UNDECLARED = "its project is not declared: declare it first"


def add_dead_letters(web: FastAPI, state: ConsoleState, letters: Letters, actions: Actions) -> None:
    """Add the routes. Only operators read messages: those that services refused may name people."""

    def told() -> dict[str, DeadLetter]:
        known = state.projects.keys() | state.projects.resting.keys()
        return {
            one.letter_id: one
            if one.not_again or one.project in known
            else one.model_copy(update={"not_again": UNDECLARED})
            for one in letters.all()
        }

    def letter_of(name: str) -> DeadLetter:
        if (found := told().get(name)) is None:
            reason = f"{name!r} is none of the latest; GET /v1/dead-letters lists them"
            raise Refused(HTTPStatus.NOT_FOUND, "letter_id", reason)
        return found

    @web.get("/v1/dead-letters")
    @needs(Role.VIEWER, everywhere=True)
    async def list_dead_letters(
        asked: Paged,
        project: Annotated[str | None, Query(description="Only messages of this project.")] = None,
        topic: Annotated[str | None, Query(description="Only messages of this topic.")] = None,
    ) -> Page[DeadLetter]:
        """The messages that services refused, newest first, without their texts."""
        found = [
            one for one in told().values() if project in (None, one.project) and topic in (None, one.topic)
        ]
        return page_of(found, asked, place=_place, answer=lambda one: one)

    @web.get("/v1/dead-letters/{letter_id}")
    @needs(Role.OPERATOR, everywhere=True)
    async def show_dead_letter(letter_id: str) -> DeadLetter:
        """A message that a service refused, with its text as far as 256 KiB, as it lies on the log now."""
        found, value = letter_of(letter_id), await letters.message_of(letter_id)
        text = (value or b"")[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
        return found.model_copy(update={"message": visible(text)})

    @web.post("/v1/dead-letters/redeliveries", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR, everywhere=True)
    async def redeliver(request: Request, order: RedeliveryOrder) -> Redelivered:
        """Let services handle a refused message once more, or all that were refused for the same reason. To
        ask twice is harmless: services know a message by its id."""
        first = letter_of(order.letter_id)
        meant = [first]
        if order.all_like_it:
            alike = (one for one in told().values() if kind_of(one) == kind_of(first))
            meant = sorted((one for one in alike if one.again_at is None), key=_place)
        elif first.not_again is not None:
            raise Refused(HTTPStatus.CONFLICT, "letter_id", first.not_again)
        able = [one for one in meant if one.not_again is None][:MOST_AGAIN]
        for one in able:
            at, who = letters.place_of(one.letter_id), caller_of(request).principal
            asked = await actions.give(
                RedeliveryRequested, project=one.project, letter_id=one.letter_id, topic=one.topic,
                partition=at.partition, offset=at.offset, principal=who,
            )  # fmt: skip
            letters.ask_again(asked)
        return Redelivered(letters=tuple(one.letter_id for one in able), left=len(meant) - len(able))


def _place(one: DeadLetter) -> tuple[datetime, str]:
    return one.at or NEVER, f"{one.topic}/{one.partition}/{one.offset:019}/{one.service}"

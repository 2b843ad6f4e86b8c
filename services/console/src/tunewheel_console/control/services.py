"""``GET /v1/services`` and ``GET /v1/dead-letters``: who reads the log, and what was refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Query
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.services import DeadLetter, GroupLag, Services
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.lag import TopicsMissing, silent_services

from tunewheel_console.control.paging import Paged, page_of
from tunewheel_console.letters import Letters

NEVER = datetime.min.replace(tzinfo=UTC)
Lags = Callable[[], Awaitable[Sequence[GroupLag]]]


def add_services(web: FastAPI, letters: Letters, lags: Lags) -> None:
    """Add the routes. ``lags`` asks the broker for the consumer groups."""

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

    @web.get("/v1/dead-letters")
    @needs(Role.VIEWER, everywhere=True)
    async def list_dead_letters(
        asked: Paged,
        project: Annotated[str | None, Query(description="Only messages of this project.")] = None,
        topic: Annotated[str | None, Query(description="Only messages of this topic.")] = None,
    ) -> Page[DeadLetter]:
        """The messages that services refused, newest first, without their texts."""
        found = [
            one for one in letters.all() if project in (None, one.project) and topic in (None, one.topic)
        ]
        return page_of(found, asked, place=_place, answer=lambda one: one)


def _place(one: DeadLetter) -> tuple[datetime, str]:
    return one.at or NEVER, f"{one.topic}/{one.partition}/{one.offset:019}/{one.service}"

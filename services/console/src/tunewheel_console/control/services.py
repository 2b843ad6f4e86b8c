"""``GET /v1/services``: who reads the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from fastapi import FastAPI
from tunewheel_contracts.api.services import GroupLag, Services
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.lag import TopicsMissing, silent_services

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

"""Follows the wheel's events as they come (server-sent events)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

from tunewheel_contracts.api.events import CloudEvent

from tunewheel_client.aio.resource import Resource
from tunewheel_client.aio.transport import WAITS_SECONDS
from tunewheel_client.errors import Away
from tunewheel_client.sse import Message, Reader
from tunewheel_client.values import Gap


class Following:
    """Events as they come. Use it in ``async with``, which ends the connection, or call ``aclose``."""

    def __init__(self, events: AsyncGenerator[CloudEvent | Gap]) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CloudEvent | Gap:
        return await self._events.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        await self._events.aclose()


class Events(Resource):
    """The events of the projects that the caller may read."""

    def follow(
        self,
        *,
        project: str | None = None,
        types: Sequence[str] = (),
        after: str | None = None,
        patience_seconds: float = 60.0,
    ) -> Following:
        """Follow events as they come, for ever. A connection that ends is opened again where it ended::

            async with client.events.follow(project="helpdesk") as events:
                async for event in events:
                    ...

        A ``Gap`` says that events are missing here: the console did not hold them any more.

        Args:
            types: the types that are meant, such as ``train.progressed``. Default: all but those of busy
                topics (records, completions, feedback), which are told only if they are named.
            after: the id of the last event that is known. Default: begin now.
            patience_seconds: how long the console may be away.

        Reading raises ``NotAllowed`` if the caller may not read the project, or not any more, and ``Away`` if
        the console is away for longer.
        """
        query = {"project": project, "type": list(types) or None}
        return Following(self._events(query, after, patience_seconds))

    async def _events(
        self, query: Mapping[str, Any], after: str | None, patience_seconds: float
    ) -> AsyncGenerator[CloudEvent | Gap]:
        reader, away_since, was_connected = Reader(after), None, False
        while True:
            reader.begin()
            headers = {"Accept": "text/event-stream"}
            if reader.last_id is not None:
                headers["Last-Event-ID"] = reader.last_id
            try:
                async with self._transport.stream("events", query=query, headers=headers) as answer:
                    away_since = None
                    if was_connected and reader.last_id is None:
                        yield Gap(after=None)  # there is no event from which the console could go on
                    was_connected = True
                    async for chunk in answer.aiter_bytes():
                        for message in reader.read(chunk):
                            yield _told(message)
            except Away:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= patience_seconds:
                    raise
            await asyncio.sleep(reader.retry_seconds or WAITS_SECONDS[-1])


def _told(message: Message) -> CloudEvent | Gap:
    if message.event == "gap":
        return Gap(after=message.id)
    return CloudEvent.model_validate_json(message.data)

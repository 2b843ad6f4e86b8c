"""Follows the wheel's events as they come (server-sent events)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from tunewheel_contracts.api.events import CloudEvent

from tunewheel_client.aio.resource import Resource
from tunewheel_client.aio.transport import WAITS_SECONDS
from tunewheel_client.errors import Away
from tunewheel_client.sse import Message, Reader
from tunewheel_client.values import Gap


class Events(Resource):
    """The events of the projects that the caller may read."""

    async def follow(
        self,
        *,
        project: str | None = None,
        types: Sequence[str] = (),
        after: str | None = None,
        patience_seconds: float = 60.0,
    ) -> AsyncIterator[CloudEvent | Gap]:
        """Yield events as they come, for ever. A connection that ends is opened again where it ended.

        A ``Gap`` says that events are missing here: the console did not hold them any more.

        Args:
            types: the types that are meant, such as ``train.progressed``. Default: all but those of busy
                topics (records, completions, feedback), which are told only if they are named.
            after: the id of the last event that is known. Default: begin now.
            patience_seconds: how long the console may be away.

        Raises:
            NotAllowed: the caller may not read the project, or not any more.
            Away: the console is away for longer.
        """
        reader, away_seconds = Reader(after), 0.0
        query = {"project": project, "type": list(types) or None}
        while True:
            reader.begin()
            headers = {"Accept": "text/event-stream"}
            if reader.last_id is not None:
                headers["Last-Event-ID"] = reader.last_id
            try:
                async with self._transport.stream("events", query=query, headers=headers) as answer:
                    async for chunk in answer.aiter_bytes():
                        away_seconds = 0.0
                        for message in reader.read(chunk):
                            yield _told(message)
            except Away:
                if away_seconds >= patience_seconds:
                    raise
            wait = reader.retry_seconds or WAITS_SECONDS[-1]
            away_seconds += wait
            await asyncio.sleep(wait)


def _told(message: Message) -> CloudEvent | Gap:
    if message.event == "gap":
        return Gap(after=message.id)
    return CloudEvent.model_validate_json(message.data)

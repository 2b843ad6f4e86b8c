# Generated from aio/events.py by scripts/client_sync.py; change that file instead.
"""Follows the wheel's events as they come (server-sent events)."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Self

from tunewheel_contracts.api.events import CloudEvent

from tunewheel_client.errors import Away
from tunewheel_client.sse import Message, Reader
from tunewheel_client.sync.resource import Resource
from tunewheel_client.sync.transport import WAITS_SECONDS
from tunewheel_client.values import Gap


class Following:
    """Events as they come. Use it in ``with``, which ends the connection, or call ``close``."""

    def __init__(self, events: Generator[CloudEvent | Gap]) -> None:
        self._events = events

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> CloudEvent | Gap:
        return self._events.__next__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._events.close()


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

            with client.events.follow(project="helpdesk") as events:
                for event in events:
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

    def _events(
        self, query: Mapping[str, Any], after: str | None, patience_seconds: float
    ) -> Generator[CloudEvent | Gap]:
        reader, heard_at, was_connected = Reader(after), time.monotonic(), False
        while True:
            reader.begin()
            headers = {"Accept": "text/event-stream"}
            if reader.last_id is not None:
                headers["Last-Event-ID"] = reader.last_id
            try:
                with self._transport.stream("events", query=query, headers=headers) as answer:
                    if was_connected and reader.last_id is None:
                        yield Gap(after=None)  # there is no event from which the console could go on
                    was_connected = True
                    for chunk in answer.iter_bytes():
                        heard_at = time.monotonic()
                        for message in reader.read(chunk):
                            yield _told(message)
            except Away:
                if time.monotonic() - heard_at >= patience_seconds:
                    raise
            time.sleep(reader.retry_seconds or WAITS_SECONDS[-1])


def _told(message: Message) -> CloudEvent | Gap:
    if message.event == "gap":
        return Gap(after=message.id)
    return CloudEvent.model_validate_json(message.data)

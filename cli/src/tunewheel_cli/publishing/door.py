"""The door through which items go onto the log: ingest's API."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import DocumentPublished

from tunewheel_cli.calling import InvalidOption
from tunewheel_cli.publishing.events import IDS, encode
from tunewheel_cli.publishing.items import Found, FoundFile, Kind, Refusal

if TYPE_CHECKING:
    from tunewheel_client import Client

BATCH_ITEMS = 1_000
Late = tuple[str, Refusal]
"""The topic of an item that was taken and is refused after all, and its refusal."""


class IngestDoor:
    """Ingest, through the client of a wheel. Items are sent in batches, files one by one. All that it took is
    on the log once ``flush`` returns, but for ``refused``."""

    def __init__(self, client: Client, allowed_groups: Sequence[str] = ()) -> None:
        self._client = client
        self._allowed_groups = tuple(allowed_groups)
        self._waiting: dict[str, list[tuple[Found, Envelope[Any]]]] = {}
        self.refused: list[Late] = []
        self.lowered: Counter[str] = Counter()
        """By what is said of them, how many answers are trusted less than they state."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._waiting.clear()

    async def send(self, found: Found, event: Envelope[Any]) -> Refusal | None:
        record = encode(found, event)
        if isinstance(record, Refusal):
            return record
        waiting = self._waiting.setdefault(event.data.type, [])
        waiting.append((found, event))
        if len(waiting) >= BATCH_ITEMS:
            await self._post(event.data.type)
        return None

    async def upload(self, file: FoundFile, project: str) -> Refusal | None:
        from tunewheel_client import Conflict, NotFound, Refused

        def post() -> None:
            self._client.publish_file(
                project, file.path, file.document_id, media_type=file.media_type,
                allowed_groups=self._allowed_groups,
            )  # fmt: skip

        try:
            await asyncio.to_thread(post)
        except OSError as error:
            return Refusal(file.where, None, "(file)", f"cannot be read: {error.strerror}")
        except (Refused, NotFound, Conflict) as error:
            return Refusal(file.where, None, error.param or "(file)", error.message)
        return None

    async def flush(self) -> None:
        for topic in list(self._waiting):
            await self._post(topic)

    async def withdraw(self, project: str, names: tuple[str, ...], reason: str) -> None:
        withdraw = self._client.documents.withdraw
        await asyncio.to_thread(lambda: withdraw(project, names, reason=reason))

    async def _post(self, topic: str) -> None:
        batch = self._waiting.pop(topic)
        events = [event.data for _, event in batch]
        if self._allowed_groups:
            if topic != DocumentPublished.type:
                raise InvalidOption("--allowed-group: is for documents; leave it out")
            events = [one.model_copy(update={"allowed_groups": self._allowed_groups}) for one in events]
        (kind,) = (kind for kind, name in IDS.items() if name == events[0].subject_field)
        receipt = await asyncio.to_thread(
            lambda: self._client.publish(events[0].project, events, kind=Kind(kind).value)
        )
        if (lowered := receipt.lowered) is not None:
            self.lowered[f"count as {lowered.trust}: {lowered.reason}"] += lowered.count
        for one in receipt.refused:
            found = batch[one.index][0]
            self.refused.append((topic, Refusal(found.where, found.line, one.field, one.reason)))

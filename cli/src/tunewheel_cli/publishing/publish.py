"""``publish_path`` publishes the valid records of a file or folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.publishing.door import IngestDoor
from tunewheel_cli.publishing.events import make_event
from tunewheel_cli.publishing.items import Found, FoundFile, Kind, OnProgress, Refusal, Source, Summary
from tunewheel_cli.publishing.mapped import mapped_source
from tunewheel_cli.publishing.sources import open_source, size_of

__all__ = ["Pump", "Summary", "publish_path"]

_YIELD_EVERY = 500


async def publish_path(
    path: Path,
    *,
    project: str,
    door: IngestDoor,
    kind: Kind | None = None,
    maps: Sequence[str] = (),
    on_progress: OnProgress | None = None,
    validated_by: str | None = None,
    source: SourceSpec | None = None,
) -> Summary:
    """Publish every valid record of ``path``; return the numbers and the refusals.

    ``validated_by`` is the expert of answers that name none. ``source`` maps the file's records to events.
    Ids follow from the content, so publishing records again changes nothing.

    Raises:
        SourceUnusable: there is nothing to read.
        InvalidOption: ``kind`` is missing for CSV, or ``maps`` do not fit the path.
        TransientError: the door cannot be reached or does not acknowledge.
        NotAllowed: the door does not know the caller, or the caller lacks a right.
    """
    summary = Summary(str(path), total_bytes=size_of(path))
    if source is None:
        items = open_source(path, kind=kind, maps=maps, max_bytes=MAX_MESSAGE_BYTES, on_bytes=summary.count)
    else:
        items = mapped_source(path, source, project, summary.count)
    began = time.monotonic()
    async with door:
        await Pump(door, summary, project, kind, on_progress, validated_by).run(items)
    summary.form, summary.notes = items.form, items.notes
    summary.lower(door.lowered)
    summary.seconds = time.monotonic() - began
    if on_progress:
        on_progress(summary)
    return summary


@dataclass(slots=True)
class Pump:
    """Sends the items of a source to a door, and counts them."""

    door: IngestDoor
    summary: Summary
    project: str
    kind: Kind | None = None
    on_progress: OnProgress | None = None
    validated_by: str | None = None

    async def run(self, source: Source) -> None:
        """Publish all of ``source`` and wait until it is acknowledged. Raises as ``publish_path``."""
        for number, found in enumerate(source, 1):
            if isinstance(found, FoundFile):
                await self._upload(found)
            else:
                await self._send(found)
            if number % _YIELD_EVERY == 0 or isinstance(found, FoundFile):
                await asyncio.sleep(0)
                self._settle()
                if self.on_progress:
                    self.on_progress(self.summary)
        await self.door.flush()
        self._settle()

    async def _upload(self, file: FoundFile) -> None:
        refusal = await self.door.upload(file, self.project)
        if refusal is not None:
            self.summary.refuse(refusal)
        else:
            self.summary.published[DocumentPublished.type] += 1

    async def _send(self, found: Found | Refusal) -> None:
        if isinstance(found, Refusal):
            self.summary.refuse(found)
        elif isinstance(made := self._to_event(found), Refusal):
            self.summary.refuse(made)
        elif (refusal := await self.door.send(found, made)) is not None:
            self.summary.refuse(refusal)
        else:
            self.summary.published[made.data.type] += 1

    def _settle(self) -> None:
        """Count what the door took and refused after all."""
        while self.door.refused:
            topic, refusal = self.door.refused.pop(0)
            self.summary.published[topic] -= 1
            self.summary.refuse(refusal)

    def _to_event(self, found: Found) -> Envelope[Any] | Refusal:
        return make_event(
            found,
            project=self.project,
            kind=self.kind,
            validated_by=self.validated_by,
        )

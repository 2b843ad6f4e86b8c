"""``publish_path`` publishes the valid records of a file or folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.events.upstream import DocumentPublished
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_local.endpoint import Endpoint

from tunewheel_cli.publishing.events import encode, make_event
from tunewheel_cli.publishing.items import Found, FoundFile, Kind, OnProgress, Refusal, Source, Summary
from tunewheel_cli.publishing.sender import Sender
from tunewheel_cli.publishing.sources import open_source, size_of
from tunewheel_cli.publishing.upload import USUAL, Uploader

__all__ = ["Pump", "Summary", "publish_path"]

_YIELD_EVERY = 500


async def publish_path(
    path: Path,
    *,
    project: str,
    options: Mapping[str, Any],
    kind: Kind | None = None,
    maps: Sequence[str] = (),
    max_bytes: int = MAX_MESSAGE_BYTES,
    on_progress: OnProgress | None = None,
    ingest: Endpoint = USUAL,
    principal: Principal | None = None,
    validated_by: str | None = None,
) -> Summary:
    """Publish every valid record of ``path``; return the numbers and the refusals.

    ``options`` are aiokafka's. ``ingest`` gets the files that are not text. ``principal`` is the publisher,
    ``validated_by`` the expert of answers that name none.
    Ids follow from the content, so publishing records again changes nothing.

    Raises:
        SourceUnusable: there is nothing to read.
        InvalidOption: ``kind`` is missing for CSV, or ``maps`` do not fit the path.
        TransientError: Kafka or ingest cannot be reached or does not acknowledge.
        NotAllowed: ingest does not know the key, or the key lacks the role.
    """
    summary = Summary(str(path), total_bytes=size_of(path))
    source = open_source(path, kind=kind, maps=maps, max_bytes=max_bytes, on_bytes=summary.count)
    began = time.monotonic()
    async with Sender(options) as sender, Uploader(ingest) as uploader:
        await Pump(sender, uploader, summary, project, kind, on_progress, principal, validated_by).run(source)
    summary.form, summary.notes = source.form, source.notes
    summary.seconds = time.monotonic() - began
    if on_progress:
        on_progress(summary)
    return summary


@dataclass(slots=True)
class Pump:
    """Sends the items of a source to Kafka or to ingest, and counts them."""

    sender: Sender
    uploader: Uploader
    summary: Summary
    project: str
    kind: Kind | None = None
    on_progress: OnProgress | None = None
    principal: Principal | None = None
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
                if self.on_progress:
                    self.on_progress(self.summary)
        await self.sender.flush()

    async def _upload(self, file: FoundFile) -> None:
        refusal = await self.uploader.send(file, self.project)
        if refusal is not None:
            self.summary.refuse(refusal)
        else:
            self.summary.published[DocumentPublished.type] += 1

    async def _send(self, found: Found | Refusal) -> None:
        record = found if isinstance(found, Refusal) else self._to_record(found)
        if isinstance(record, Refusal):
            self.summary.refuse(record)
        else:
            await self.sender.send(record)
            self.summary.published[record.topic] += 1

    def _to_record(self, found: Found) -> KafkaRecord | Refusal:
        made = make_event(
            found,
            project=self.project,
            kind=self.kind,
            principal=self.principal,
            validated_by=self.validated_by,
        )
        return made if isinstance(made, Refusal) else encode(found, made)

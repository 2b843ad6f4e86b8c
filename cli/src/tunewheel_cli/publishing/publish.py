"""``publish_path``: a file or folder onto the log, the good lines of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.publishing.events import encode, fields_of, make_event
from tunewheel_cli.publishing.folder import MEDIA_TYPES, document_files, read_documents
from tunewheel_cli.publishing.items import Found, Kind, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.lines import OnBytes, read_json_lines
from tunewheel_cli.publishing.rows import parse_maps, read_csv
from tunewheel_cli.publishing.sender import Sender

KEPT_REFUSALS = 1_000
"""Refusals that are remembered; beyond it they are only counted."""
JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
_YIELD_EVERY = 500


@dataclass(slots=True)
class Summary:
    """What became of a path."""

    path: str
    total_bytes: int
    read_bytes: int = 0
    published: Counter[str] = field(default_factory=Counter)
    """Acknowledged events by topic."""
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def events(self) -> int:
        return self.published.total()

    def refuse(self, refusal: Refusal) -> None:
        self.refused += 1
        if len(self.refusals) < KEPT_REFUSALS:
            self.refusals.append(refusal)

    def as_json(self) -> dict[str, Any]:
        """Return the summary for machines."""
        refusals = [
            {"line": r.line, "where": r.where, "field": r.field, "reason": r.reason} for r in self.refusals
        ]
        return {
            "path": self.path,
            "published": self.events,
            "by_topic": dict(self.published),
            "refused": self.refused,
            "refusals": refusals,
            "bytes": self.read_bytes,
            "seconds": round(self.seconds, 3),
        }


OnProgress = Callable[[Summary], None]


async def publish_path(
    path: Path,
    *,
    project: str,
    options: Mapping[str, Any],
    kind: Kind | None = None,
    maps: Sequence[str] = (),
    max_bytes: int = MAX_MESSAGE_BYTES,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Publish every good record of ``path`` and return what was refused; ``options`` are aiokafka's.

    Ids follow from content: publishing again what is on the log already changes nothing.

    Raises:
        SourceUnusable: there is nothing to read, or an option does not fit it.
        TransientError: Kafka cannot be reached or does not acknowledge.
    """
    summary = Summary(str(path), total_bytes=_size(path))

    def count(size: int) -> None:
        summary.read_bytes += size

    source = open_source(path, kind=kind, maps=maps, max_bytes=max_bytes, on_bytes=count)
    began = time.monotonic()
    async with Sender(options) as sender:
        await _pump(source, sender, summary, project=project, kind=kind, on_progress=on_progress)
    summary.seconds = time.monotonic() - began
    if on_progress:
        on_progress(summary)
    return summary


def open_source(
    path: Path, *, kind: Kind | None, maps: Sequence[str], max_bytes: int, on_bytes: OnBytes | None = None
) -> Source:
    """Return the records of ``path``, chosen by what it is."""
    if not path.exists():
        raise SourceUnusable(f"{path}: does not exist; check the path")
    suffix = path.suffix.lower()
    if maps and suffix != ".csv":
        raise SourceUnusable("--map: is for CSV files; in JSON Lines and folders fields have their names")
    if path.is_dir():
        files = document_files(path)
        if not files:
            raise SourceUnusable(f"{path}: holds no documents ({', '.join(MEDIA_TYPES)})")
        return read_documents(path, files, max_bytes=max_bytes, on_bytes=on_bytes)
    if suffix in JSON_LINES:
        return read_json_lines(path, max_bytes=max_bytes, on_bytes=on_bytes)
    if suffix == ".csv":
        mapping = parse_maps(maps)
        if kind is None:
            raise SourceUnusable("--kind: is needed for CSV; say ticket, example or document")
        return read_csv(path, mapping=mapping, fields=fields_of(kind), max_bytes=max_bytes, on_bytes=on_bytes)
    if suffix in MEDIA_TYPES:
        return read_documents(path.parent, [path], max_bytes=max_bytes, on_bytes=on_bytes)
    known = ", ".join((*JSON_LINES, ".csv", *MEDIA_TYPES))
    raise SourceUnusable(f"{path}: is none of {known}; rename it or convert it")


async def _pump(
    source: Source,
    sender: Sender,
    summary: Summary,
    *,
    project: str,
    kind: Kind | None,
    on_progress: OnProgress | None,
) -> None:
    for number, found in enumerate(source, 1):
        record = found if isinstance(found, Refusal) else _to_record(found, project, kind)
        if isinstance(record, Refusal):
            summary.refuse(record)
        else:
            await sender.send(record)
            summary.published[record.topic] += 1
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
            if on_progress:
                on_progress(summary)
    await sender.flush()


def _to_record(found: Found, project: str, kind: Kind | None) -> KafkaRecord | Refusal:
    made = make_event(found, project=project, kind=kind)
    return made if isinstance(made, Refusal) else encode(found, made)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in document_files(path) if file.is_file())
    return path.stat().st_size if path.exists() else 0

"""Finds the dead letters of erased messages, and removes them from their topics.

Kafka can only delete the beginning of a partition. So all letters up to the last erased one are deleted
(``DeleteRecords``). Those of them that must stay are first written again at the partition's end, with their
original timestamps.
"""

# Letters hold any JSON.
from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts.binding import is_structured, structured_event
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import KafkaRecord

from tunewheel_runtime.deadletter import Position, Undecoded, refused, withheld
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import Place, read
from tunewheel_runtime.publishing import Publisher
from tunewheel_runtime.retention import delete_records
from tunewheel_runtime.settings import ServiceSettings


def is_erased(record: Undecoded, erasures: Iterable[Erasure]) -> bool:
    """Return whether an erasure covers a refused message: the message names the erased person or source, and
    was published before the erasure.

    A refused message may be no valid event. So any value in its JSON counts as a name, or any word if it is
    not JSON. In doubt the message is covered: any part of a binary message of the erasure's project counts as
    a name. A binary message that names no project may be any project's, and a short id stands in most of them
    by chance. There a name counts as a word, or where its length stands before it, as Avro and Protobuf write
    a text. Requests and proofs of erasures are never covered, although they name a person.
    """
    if record.position.topic.startswith("erasure."):
        return False
    record = _with_headers(record)
    said, published = _Said.of(record), _published(record)
    return any(
        (published is None or published <= erasure.until)
        and said.project in (None, erasure.project)
        and said.names(erasure.subject)
        for erasure in erasures
    )


def _with_headers(record: Undecoded) -> Undecoded:
    """Return a structured CloudEvent with its time and its project as headers, and its data not in base64."""
    if not is_structured(record.headers.items()):
        return record
    try:
        event = structured_event(record.value or b"")
    except InvalidEvent:
        return record
    data = event.get("data")
    project = event.get("project") or (data.get("project") if isinstance(data, dict) else None)
    told = {"ce_time": event.get("time"), "ce_project": project}
    headers = {name: one.encode("utf-8", "replace") for name, one in told.items() if isinstance(one, str)}
    return replace(record, headers={**record.headers, **headers}, value=json.dumps(event).encode())


@dataclass(frozen=True, slots=True)
class _Said:
    project: str | None
    values: frozenset[str]
    texts: tuple[str, ...]
    """The content of a message that is not JSON, decoded with each encoding that it may have."""
    binary: bytes = b""
    """The content of a message that begins with a schema's id. The byte before a name then tells a length,
    and may look like a letter."""

    @classmethod
    def of(cls, record: Undecoded) -> _Said:
        around = (record.key, record.headers.get("ce_subject"))
        names = frozenset((name or b"").decode("utf-8", "replace") for name in around)
        project = record.headers.get("ce_project", b"").decode("utf-8", "replace") or None
        value = record.value or b""
        try:
            data: Any = json.loads(value)
        except (ValueError, RecursionError):
            texts = value.decode("utf-8", "replace"), value.decode("latin-1")
            return cls(project, names, texts, binary=value if value[:1] == b"\0" else b"")
        if project is None and isinstance(data, dict) and isinstance(data.get("project"), str):
            project = data["project"]
        return cls(project, names.union(_scalars(data)), ())

    def names(self, subject: str) -> bool:
        # Search for the plain text first: to compile a pattern for each of many erasures takes seconds.
        texts = [text for text in self.texts if subject in text]
        word = rf"(?<![\w-]){re.escape(subject)}(?![\w-])"
        found = any(self._has_part(subject) or re.search(word, text) for text in texts)
        return found or subject in self.values

    def _has_part(self, subject: str) -> bool:
        if not self.binary or self.project is not None:
            return bool(self.binary)
        name = subject.encode()
        return any(_varint(length) + name in self.binary for length in (len(name), 2 * len(name)))


def _varint(number: int) -> bytes:
    """Return a length as Protobuf writes it; Avro writes twice the number."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _scalars(data: Any) -> Iterator[str]:
    """Yield every string and number of JSON as text."""
    waiting = [data]
    while waiting:
        match waiting.pop():
            case dict() as members:
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items)
            case value:
                yield str(value)


def _published(record: Undecoded) -> datetime | None:
    """Return when a message was published: the time in its headers, but at most the time at which it was
    logged."""
    sent = _sent(record.headers)
    if record.logged_ms is None:
        return sent
    logged = datetime.fromtimestamp(record.logged_ms / 1000, UTC)
    return logged if sent is None else min(sent, logged)


def _sent(headers: Mapping[str, bytes]) -> datetime | None:
    try:
        sent = datetime.fromisoformat(headers.get("ce_time", b"").decode("utf-8", "replace"))
    except ValueError:
        return None
    return sent if sent.tzinfo else sent.replace(tzinfo=UTC)


class ErasedLetters:
    """The letters on ``topics`` that one erasure covers. Repeating the removal, or interrupting it, is
    harmless: a letter that was already written again is not written a third time."""

    def __init__(self, settings: ServiceSettings, publisher: Publisher, topics: Sequence[str]) -> None:
        self._settings = settings
        self._publisher = publisher
        self._topics = topics
        self._last: dict[Place, int] = {}
        """By partition: the offset of its last erased letter."""
        self._newest: dict[tuple[str, Position], Position] = {}
        """By identity of a letter: the position of its newest copy."""

    async def find(self, erasure: Erasure) -> int:
        """Return how many letters the erasure covers.

        Raises:
            TransientError: the broker does not answer.
        """
        identities: set[tuple[str, Position]] = set()
        async for letter in self._read(None):
            self._newest[refused(letter)] = letter.position
            if is_erased(_message(letter), [erasure]):
                self._last[letter.position.place] = letter.position.offset
                identities.add(refused(letter))
        return len(identities)

    async def remove(self, erasure: Erasure) -> None:
        """Delete the letters that ``find`` found.

        Raises:
            InvalidEvent: this user has no right to delete records in Kafka.
            TransientError: the broker does not answer.
        """
        if not self._last:
            return
        async for letter in self._read({place: last + 1 for place, last in self._last.items()}):
            if self._newest[refused(letter)] == letter.position:
                key, value, headers = letter.key or b"", letter.value or b"", dict(letter.headers)
                copy = KafkaRecord(letter.position.topic, key, value, headers, letter.logged_ms)
                gone = is_erased(_message(letter), [erasure])
                await self._publisher.send([withheld(copy) if gone else copy])
        await self._delete()

    async def _delete(self) -> None:
        await delete_records(self._settings, {place: last + 1 for place, last in self._last.items()})

    async def _read(self, upto: Mapping[Place, int] | None) -> AsyncIterator[Undecoded]:
        """Yield the letters before ``upto``; None: up to the present ends."""
        names = self._topics if upto is None else sorted({topic for topic, _ in upto})
        async for letters in read(client_options(self._settings), names, upto=upto, missing_ok=True):
            for letter in letters:
                yield letter


def _message(letter: Undecoded) -> Undecoded:
    """Return the refused message in a letter. The letter's timestamp is the time of the refusal, which may be
    long after publication; it is only an upper bound of the time of publication."""
    letter = _with_headers(letter)
    return letter if _sent(letter.headers) is not None else replace(letter, logged_ms=None)

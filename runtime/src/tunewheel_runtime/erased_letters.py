"""Finds the dead letters of erased messages, and removes them from their topics.

Kafka can only delete the beginning of a partition. So all letters up to the last erased one are deleted
(``DeleteRecords``). Those of them that must stay are first written again at the partition's end, with their
original timestamps.
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import KafkaRecord

from tunewheel_runtime.deadletter import Position, Undecoded, refused, withheld
from tunewheel_runtime.kafka import client_options, make_consumer
from tunewheel_runtime.partitions import partitions_of
from tunewheel_runtime.publishing import Publisher
from tunewheel_runtime.settings import ServiceSettings

log = structlog.get_logger(__name__)


def is_erased(record: Undecoded, erasures: Iterable[Erasure]) -> bool:
    """Return whether an erasure covers a refused message: the message names the erased person or source, and
    was published before the erasure.

    A refused message may be no valid event. So any value in its JSON counts as a name, or any word if it is
    not JSON. In doubt the message is covered. Requests and proofs of erasures are never covered, although
    they name a person.
    """
    if record.position.topic.startswith("erasure."):
        return False
    said, published = _Said.of(record), _published(record)
    return any(
        (published is None or published <= erasure.until)
        and said.project in (None, erasure.project)
        and said.names(erasure.subject)
        for erasure in erasures
    )


@dataclass(frozen=True, slots=True)
class _Said:
    project: str | None
    values: frozenset[str]
    texts: tuple[str, ...]
    """The content of a message that is not JSON, decoded with each encoding that it may have."""

    @classmethod
    def of(cls, record: Undecoded) -> _Said:
        around = (record.key, record.headers.get("ce_subject"))
        names = frozenset((name or b"").decode("utf-8", "replace") for name in around)
        project = record.headers.get("ce_project", b"").decode("utf-8", "replace") or None
        value = record.value or b""
        try:
            data: Any = json.loads(value)
        except (ValueError, RecursionError):
            return cls(project, names, (value.decode("utf-8", "replace"), value.decode("latin-1")))
        if project is None and isinstance(data, dict) and isinstance(data.get("project"), str):
            project = data["project"]
        return cls(project, names.union(_scalars(data)), ())

    def names(self, subject: str) -> bool:
        # Search for the plain text first: to compile a pattern for each of many erasures takes seconds.
        texts = [text for text in self.texts if subject in text]
        word = rf"(?<![\w-]){re.escape(subject)}(?![\w-])"
        return subject in self.values or any(re.search(word, text) for text in texts)


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
        self._last: dict[TopicPartition, int] = {}
        """By partition: the offset of its last erased letter."""
        self._newest: dict[tuple[str, Position], tuple[TopicPartition, int]] = {}
        """By identity of a letter: partition and offset of its newest copy."""

    async def find(self, erasure: Erasure) -> int:
        """Return how many letters the erasure covers.

        Raises:
            TransientError: the broker does not answer.
        """
        identities: set[tuple[str, Position]] = set()
        async for record in self._read({}):
            place = TopicPartition(record.topic, record.partition)
            self._newest[refused(record)] = place, record.offset
            if is_erased(_undecoded(record), [erasure]):
                self._last[place] = record.offset
                identities.add(refused(record))
        return len(identities)

    async def remove(self, erasure: Erasure) -> None:
        """Delete the letters that ``find`` found.

        Raises:
            InvalidEvent: this user has no right to delete records in Kafka.
            TransientError: the broker does not answer.
        """
        if not self._last:
            return
        async for record in self._read({place: last + 1 for place, last in self._last.items()}):
            place = TopicPartition(record.topic, record.partition)
            if self._newest[refused(record)] == (place, record.offset):
                letter = KafkaRecord(
                    record.topic, record.key or b"", record.value or b"", _headers(record), record.timestamp
                )
                gone = is_erased(_undecoded(record), [erasure])
                await self._publisher.send([withheld(letter) if gone else letter])
        await self._delete()

    async def _delete(self) -> None:
        admin = AIOKafkaAdminClient(**client_options(self._settings))
        try:
            await admin.start()
            await admin.delete_records({p: RecordsToDelete(last + 1) for p, last in self._last.items()})
        except TopicAuthorizationFailedError as error:
            names = ", ".join(sorted({place.topic for place in self._last}))
            reason = f"cannot be done: Kafka refuses to delete records of {names}; allow it, then ask again"
            raise InvalidEvent(field="(topic)", reason=reason) from error
        except (KafkaError, OSError) as error:
            raise TransientError(f"cannot delete dead letters: {error!r}") from error
        finally:
            await admin.close()
        log.info("dead_letters_erased", upto={str(place): last + 1 for place, last in self._last.items()})

    async def _read(self, ends: Mapping[TopicPartition, int]) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
        """Yield the letters before ``ends``. If ``ends`` is empty, yield all letters up to the present
        ends."""
        options = client_options(self._settings)
        consumer = make_consumer(options, max_partition_fetch_bytes=8 << 20)
        try:
            await consumer.start()
            partitions = list(ends) or await partitions_of(options, self._topics)
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            left = dict(ends or await consumer.end_offsets(partitions))
            while left := {p: end for p, end in left.items() if await consumer.position(p) < end}:
                for place, records in (await consumer.getmany(*left, timeout_ms=200)).items():
                    for record in records:
                        if record.offset < left[place]:
                            yield record
        except (KafkaError, OSError) as error:
            raise TransientError(f"cannot read dead letters: {error!r}") from error
        finally:
            await consumer.stop()


def _headers(record: ConsumerRecord[bytes, bytes]) -> dict[str, bytes]:
    return {name: value or b"" for name, value in record.headers}


def _undecoded(record: ConsumerRecord[bytes, bytes]) -> Undecoded:
    """Return the refused message in a letter. The letter's timestamp is the time of the refusal, which may be
    long after publication; it is only an upper bound of the time of publication."""
    place, headers = Position(record.topic, record.partition, record.offset), _headers(record)
    logged_ms = record.timestamp if _sent(headers) is not None else None
    return Undecoded(place, record.key, record.value, headers, logged_ms)

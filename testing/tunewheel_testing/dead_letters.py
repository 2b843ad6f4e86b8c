"""Reads dead letters: the messages that services refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.topics import TOPICS, TopicSpec

from tunewheel_testing.reading import read_records

if TYPE_CHECKING:
    from tunewheel_runtime.deadletter import Undecoded

SHOWN_CHARACTERS = 300
"""How many characters of the message are shown."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused message: its place on the log, the service that refused it, the field and the reason."""

    topic: str
    partition: int
    offset: int
    service: str
    field: str
    reason: str
    message: str
    """The message's beginning. Bytes that are not UTF-8 are escaped."""
    event_id: str = ""
    kind: str = "invalid"
    """``invalid``, or ``crashed``: the service failed on the message again and again."""

    @classmethod
    def of(cls, record: Undecoded) -> DeadLetter:
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers.items()}
        text = (record.value or b"")[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
        return cls(
            topic=headers.get("dlq_source_topic", record.position.topic.removesuffix(".dlq")),
            partition=int(headers.get("dlq_source_partition", -1)),
            offset=int(headers.get("dlq_source_offset", -1)),
            service=headers.get("dlq_service", ""),
            field=headers.get("dlq_field", ""),
            reason=headers.get("dlq_reason", ""),
            message=text[:SHOWN_CHARACTERS],
            event_id=headers.get("ce_id", ""),
            kind=headers.get("dlq_kind", "invalid"),
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def letter_topics(topics: Sequence[TopicSpec] = TOPICS) -> list[str]:
    """Return the dead-letter topics of ``topics``."""
    return [topic.dead_letter for topic in topics if topic.dead_letter_exists]


async def read_dead_letters(
    options: Mapping[str, Any], topics: Sequence[TopicSpec] = TOPICS
) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of ``topics``, each once (``refused``); ``options`` are aiokafka's.

    Raises:
        TransientError: no Kafka answers.
    """
    from tunewheel_runtime.deadletter import refused

    seen: set[object] = set()
    async for record in read_records(options, letter_topics(topics)):
        if (identity := refused(record)) not in seen:
            seen.add(identity)
            yield DeadLetter.of(record)


async def dead_letter_counts(options: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of refused messages by topic, without topics that have none.

    Raises:
        TransientError: no Kafka answers.
    """
    counts = Counter([letter.topic async for letter in read_dead_letters(options)])
    return dict(sorted(counts.items()))

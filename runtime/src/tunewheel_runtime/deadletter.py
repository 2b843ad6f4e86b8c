"""Dead letters: the original bytes, why they were refused, and where they came from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from opentelemetry import metrics
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import KafkaRecord

from tunewheel_runtime.publishing import Publisher
from tunewheel_runtime.retry import Backoff, retry

log = structlog.get_logger(__name__)

HEADER_PREFIX = "dlq_"


class DeadLetterLimitExceeded(TunewheelError):
    """So many messages were refused that the fault lies with the service or a whole upstream."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record lies on the log."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A record as it came: key, value and headers are the original bytes."""

    position: Position
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


class DeadLetters:
    """Writes dead letters of one service, and stops it when they get out of hand."""

    def __init__(
        self,
        publisher: Publisher,
        backoff: Backoff,
        counter: metrics.Counter,
        *,
        service: str,
        limit: int,
        window: int,
    ) -> None:
        self._publisher = publisher
        self._backoff = backoff
        self._counter = counter
        self._service = service
        self._limit = limit
        self._recent: deque[bool] = deque(maxlen=window)

    def passed(self, count: int = 1) -> None:
        """Note messages that were fine: only the share of refused ones counts."""
        self._recent.extend([False] * min(count, self._recent.maxlen or count))

    async def write(self, record: Undecoded, error: InvalidEvent) -> None:
        """Put ``record`` on its dead-letter topic.

        Raises:
            DeadLetterLimitExceeded: too many among the latest messages; nothing was written.
            TransientError: the dead letter could not be written; the source offset must not move.
        """
        self._recent.append(True)
        if sum(self._recent) > self._limit:
            raise DeadLetterLimitExceeded(
                f"{sum(self._recent)} of the latest {len(self._recent)} messages were refused, the limit is "
                f"{self._limit}; latest: {record.position.topic}: {error}. Mend the upstream (or raise "
                "TUNEWHEEL_DEAD_LETTER_LIMIT) and restart"
            )
        letter = dead_letter(record, error, service=self._service)
        await retry(lambda: self._publisher.send([letter]), self._backoff, what="dead letter")
        self._counter.add(1, {"topic": record.position.topic})
        log.warning(
            "dead_lettered",
            topic=record.position.topic,
            partition=record.position.partition,
            offset=record.position.offset,
            field=error.field,
            reason=error.reason,
        )


def dead_letter(record: Undecoded, error: InvalidEvent, *, service: str) -> KafkaRecord:
    """Build the dead letter: the original value and headers, with ``dlq_*`` headers beside them."""
    told = {
        "service": service,
        "field": error.field,
        "reason": error.reason[:2_000],
        "source_topic": record.position.topic,
        "source_partition": str(record.position.partition),
        "source_offset": str(record.position.offset),
    }
    added = {HEADER_PREFIX + name: value.encode("utf-8", "replace") for name, value in told.items()}
    kept = {name: value for name, value in record.headers.items() if not name.startswith(HEADER_PREFIX)}
    return KafkaRecord(
        topic=f"{record.position.topic}.dlq",
        key=record.key or b"",
        value=record.value or b"",
        headers=kept | added,
    )

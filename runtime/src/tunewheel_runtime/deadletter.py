"""Dead letters: the original bytes, why they were refused, and where they came from."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import ConsumerRecord
from opentelemetry import metrics
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import DEAD_LETTER_OVERHEAD, MAX_MESSAGE_BYTES

from tunewheel_runtime.publishing import Publisher
from tunewheel_runtime.retry import Backoff, retry

log = structlog.get_logger(__name__)

HEADER_PREFIX = "dlq_"
LONGEST_FIELD = 256
LONGEST_REASON = 2_000
"""Characters. A misspelt field's name comes from the message, and may be as long as that."""
LARGEST = MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD // 2
"""Of key, value and headers together: what every dead-letter topic takes."""
LARGEST_KEY = 4_096


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


Refusal = tuple[Undecoded, InvalidEvent]


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

    def passed(self) -> None:
        """Note a message that was fine: only the share of refused ones counts. Call it once a message, in
        the order of the log: behind a batch's refusals its other messages would come too late."""
        self._recent.append(False)

    def refuse(self, record: Undecoded, error: InvalidEvent) -> None:
        """Note a refused message, in its turn like ``passed``; its letter is to be ``put``.

        Raises:
            DeadLetterLimitExceeded: too many among the latest messages.
        """
        self._recent.append(True)
        if sum(self._recent) > self._limit:
            at = record.position
            raise DeadLetterLimitExceeded(
                f"{sum(self._recent)} of the latest {len(self._recent)} messages were refused, the limit is "
                f"{self._limit}; latest: {at.topic}[{at.partition}]@{at.offset}: {error}. Mend the upstream; "
                "what is on the log already is refused again: restart with a higher "
                "TUNEWHEEL_DEAD_LETTER_LIMIT to let it into the dead letters"
            )

    async def put(self, refusals: Sequence[Refusal]) -> None:
        """Put refused records on their dead-letter topics. Do it last before the offset moves: a letter is
        written again for what is delivered again.

        Raises:
            TransientError: a dead letter could not be written; the source offset must not move.
        """
        for record, error in refusals:
            letter = dead_letter(record, error, service=self._service)
            await retry(lambda one=letter: self._publisher.send([one]), self._backoff, what="dead letter")
            self._counter.add(1, {"topic": record.position.topic})
            log.warning(
                "dead_lettered",
                topic=record.position.topic,
                partition=record.position.partition,
                offset=record.position.offset,
                field=error.field,
                reason=error.reason,
            )

    async def write(self, record: Undecoded, error: InvalidEvent) -> None:
        """Note a refused message and put it on its dead-letter topic; see ``refuse`` and ``put`` for errors.
        Where the limit is exceeded nothing is written."""
        self.refuse(record, error)
        await self.put([(record, error)])


def refused(record: ConsumerRecord[bytes, bytes]) -> tuple[str, Position]:
    """Return by whom, and where on the log, a dead letter was refused: it is counted once by that.

    A service that is killed before its offset moves writes its latest letters again. What others put on a
    dead-letter topic, without these headers, is itself.
    """
    told = {
        name.removeprefix(HEADER_PREFIX): (value or b"").decode("utf-8", "replace")
        for name, value in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    try:
        source = Position(told["source_topic"], int(told["source_partition"]), int(told["source_offset"]))
        return told["service"], source
    except (KeyError, ValueError):
        return "", Position(record.topic, record.partition, record.offset)


def dead_letter(record: Undecoded, error: InvalidEvent, *, service: str) -> KafkaRecord:
    """Build the dead letter: the original value and headers, with ``dlq_*`` headers beside them.

    A message that was compressed on its way can be larger than the log takes uncompressed: of such a one the
    beginning is kept, ``dlq_cut_bytes`` and ``dlq_cut_sha256`` tell how long the value was and what it hashed
    to, and the whole still lies at its source position.
    """
    told = {
        "service": service,
        "field": error.field[:LONGEST_FIELD],
        "reason": error.reason[:LONGEST_REASON],
        "source_topic": record.position.topic,
        "source_partition": str(record.position.partition),
        "source_offset": str(record.position.offset),
    }
    key, value = record.key or b"", record.value or b""
    kept = {name: value for name, value in record.headers.items() if not name.startswith(HEADER_PREFIX)}
    if _size(key, value, kept) > LARGEST:
        told |= {"cut_bytes": str(len(value)), "cut_sha256": content_sha256(value)}
        kept = {name: value for name, value in kept.items() if name.startswith("ce_") and len(value) <= 1_024}
        key, value = key[:LARGEST_KEY], value[: MAX_MESSAGE_BYTES // 2]
    added = {HEADER_PREFIX + name: text.encode("utf-8", "replace") for name, text in told.items()}
    return KafkaRecord(topic=f"{record.position.topic}.dlq", key=key, value=value, headers=kept | added)


def _size(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> int:
    # each header takes a few bytes beside its name and value
    return len(key) + len(value) + sum(4 * len(name) + len(text) + 16 for name, text in headers.items())

"""Dead letters: the original bytes, why they were refused, and where they came from.

How many a project has on a topic never stops the service: others share its topics. A flood is told instead
(``docs/adr/0013-a-flood-of-refusals-is-told.md``).
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import ConsumerRecord
from opentelemetry import metrics
from tunewheel_contracts.errors import InvalidEvent
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
PLACE_HEADERS = ("ce_type", "ce_project", "dlq_service", "dlq_source_topic", "dlq_source_partition",
                 "dlq_source_offset")  # fmt: skip
ERASED = InvalidEvent(
    field="(erased)", reason="what the message said was erased; the place it came from stays"
)
MOST_STREAMS = 1_000
"""Topics and projects whose refusals are counted; made-up projects push out who was silent longest."""


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
    logged_ms: int | None = None
    """The record's own timestamp, milliseconds since 1970."""


Refusal = tuple[Undecoded, InvalidEvent]


Warn = Callable[[str, str | None], None]
"""Tells users of a trouble by its name; None for the text: it is over."""


class DeadLetters:
    """Writes dead letters of one service, and says when they get out of hand."""

    def __init__(
        self,
        publisher: Publisher,
        backoff: Backoff,
        counter: metrics.Counter,
        warn: Warn,
        *,
        service: str,
        limit: int,
        window: int,
    ) -> None:
        self._publisher = publisher
        self._backoff = backoff
        self._counter = counter
        self._service = service
        self._flood = Flood(warn, limit=limit, window=window)
        self._is_erased: Callable[[Undecoded], bool] = lambda _: False
        self._refresh: Callable[[], Awaitable[None]] | None = None

    def withhold(
        self, is_erased: Callable[[Undecoded], bool], refresh: Callable[[], Awaitable[None]]
    ) -> None:
        """Write letters of what ``is_erased`` without what they carry; ``refresh`` learns of all erasures.
        A service may read its topics again, and an erased letter must not come back by that."""
        self._is_erased, self._refresh = is_erased, refresh

    def expect(self, topic: str) -> None:
        """Tell from the start that ``topic`` has no dead letters yet."""
        self._counter.add(0, {"topic": topic})

    def passed(self, topic: str, project: str) -> None:
        """Note a message that was fine: only the share of refused ones counts. Call it once a message, in
        the order of the log: behind a batch's refusals its other messages would come too late."""
        self._flood.note(topic, project)

    def refuse(self, record: Undecoded, error: InvalidEvent, *, project: str | None = None) -> None:
        """Note a refused message, in its turn like ``passed``; its letter is to be ``put``. Without a
        ``project`` (it could not be decoded) it counts for the one that its headers name."""
        if project is None:
            project = record.headers.get("ce_project", b"")[:LONGEST_FIELD].decode("utf-8", "replace")
        self._flood.note(record.position.topic, project, refused=str(error))

    async def put(self, refusals: Sequence[Refusal]) -> None:
        """Put refused records on their dead-letter topics. Do it last before the offset moves: a letter is
        written again for what is delivered again.

        Raises:
            TransientError: a dead letter could not be written; the source offset must not move.
        """
        if refusals and self._refresh is not None:
            await retry(self._refresh, self._backoff, what="reading erasures")
        for record, error in refusals:
            letter = dead_letter(record, error, service=self._service)
            if self._is_erased(record):
                letter, error = withheld(letter), ERASED
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

    async def write(self, record: Undecoded, error: InvalidEvent, *, project: str | None = None) -> None:
        """Note a refused message and put it on its dead-letter topic; see ``refuse`` and ``put``."""
        self.refuse(record, error, project=project)
        await self.put([(record, error)])


class Flood:
    """Tells a topic and project of whose latest ``window`` messages more than ``limit`` were refused."""

    def __init__(self, warn: Warn, *, limit: int, window: int) -> None:
        self._warn = warn
        self._limit = limit
        self._window = window
        self._recent: OrderedDict[tuple[str, str], deque[bool]] = OrderedDict()
        """By topic and project: was each of the latest messages refused? Kept from the first refusal on."""
        self._told: set[tuple[str, str]] = set()

    def note(self, topic: str, project: str, *, refused: str = "") -> None:
        """Note one message, and why it was ``refused`` where it was."""
        stream = topic, project
        recent = self._recent.get(stream)
        if recent is None:
            if not refused:
                return
            recent = self._recent[stream] = deque(maxlen=self._window)
        recent.append(bool(refused))
        self._recent.move_to_end(stream)
        if refused or stream in self._told:
            self._tell(stream, sum(recent), len(recent), refused)
        if len(self._recent) > MOST_STREAMS:
            self._forget(next(iter(self._recent)))

    def _tell(self, stream: tuple[str, str], count: int, among: int, latest: str) -> None:
        topic, project = stream
        if count > self._limit and stream not in self._told:
            self._told.add(stream)
            text = (
                f"{count} of the latest {among} messages of project {project!r} on {topic} were refused, the "
                f"latest: {latest}. Mend what publishes them; `tunewheel dead-letters` shows them all"
            )
            self._warn(_named(stream), text)
        elif count <= self._limit and stream in self._told:
            self._told.discard(stream)
            self._warn(_named(stream), None)

    def _forget(self, stream: tuple[str, str]) -> None:
        del self._recent[stream]
        if stream in self._told:
            self._told.discard(stream)
            self._warn(_named(stream), None)


def _named(stream: tuple[str, str]) -> str:
    return f"dead letters on {stream[0]} of project {stream[1]!r}"


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


def withheld(letter: KafkaRecord) -> KafkaRecord:
    """Return ``letter`` without what it carries: that something was refused, by whom and where, stays."""
    places = {name: letter.headers[name] for name in PLACE_HEADERS if name in letter.headers}
    told = {"dlq_field": ERASED.field.encode(), "dlq_reason": ERASED.reason.encode()}
    return dataclasses.replace(letter, key=b"", value=b"", headers=places | told)


def _size(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> int:
    # each header takes a few bytes beside its name and value
    return len(key) + len(value) + sum(4 * len(name) + len(text) + 16 for name, text in headers.items())

"""Dead letters: the original bytes of a refused message, the reason, and the position that it came from.

The number of a project's dead letters never stops the service, because other projects share the topics. A
flood of refusals is reported as a warning (``docs/adr/0013-a-flood-of-refusals-is-told.md``).
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiokafka import ConsumerRecord
from opentelemetry import metrics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, KafkaRecord
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import BY_NAME, DEAD_LETTER_OVERHEAD, MAX_MESSAGE_BYTES, TopicSpec

from tunewheel_runtime.publishing import Publisher
from tunewheel_runtime.retry import Backoff, retry

log = structlog.get_logger(__name__)

HEADER_PREFIX = "dlq_"
LONGEST_FIELD = 256
LONGEST_REASON = 2_000
"""Most characters of a reason. It may quote the name of a misspelt field, which may be as long as the
message."""
LARGEST = MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD // 2
"""Most bytes of key, value and headers together that every dead-letter topic accepts."""
LARGEST_KEY = 4_096
PLACE_HEADERS = ("ce_type", "ce_project", "dlq_service", "dlq_source_topic", "dlq_source_partition",
                 "dlq_source_offset", "dlq_kind")  # fmt: skip
ERASED = InvalidEvent(
    field="(erased)", reason="the message's content was erased; its position on the log is kept"
)
MOST_STREAMS = 1_000
"""Most pairs of topic and project whose refusals are counted. If there are more (project names may be
invented), the least recently seen pair is dropped."""


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a record on the log."""

    topic: str
    partition: int
    offset: int

    @property
    def place(self) -> tuple[str, int]:
        """The topic and the partition."""
        return self.topic, self.partition


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A record before decoding: key, value and headers are the original bytes. A header without a value is
    empty."""

    position: Position
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    logged_ms: int | None = None
    """The record's timestamp, in milliseconds since 1970."""
    letters: str | None = None
    """The topic whose dead letters hold the record if it is refused. None: its own. The topics of other
    systems have none."""

    @property
    def key_text(self) -> str:
        return (self.key or b"").decode("utf-8", "replace")


Check = Callable[[TopicSpec, Envelope[Any], Undecoded], Envelope[Any]]
"""Returns what counts of a decoded event. Raises ``InvalidEvent`` for an event that does not count. Gets the
record that held it."""


def unchecked(_topic: TopicSpec, event: Envelope[Any], _record: Undecoded) -> Envelope[Any]:
    """The ``Check`` that lets everything count."""
    return event


def undecoded(record: ConsumerRecord[bytes, bytes]) -> Undecoded:
    headers = {name: value or b"" for name, value in record.headers}
    return Undecoded(position_of(record), record.key, record.value, headers, logged_ms=record.timestamp)


def position_of(record: ConsumerRecord[bytes, bytes]) -> Position:
    return Position(record.topic, record.partition, record.offset)


class Crashed(InvalidEvent):
    """A message on which its handler fails again and again, by an error that nobody foresaw."""

    @classmethod
    def by(cls, error: Exception) -> Crashed:
        """Name the error's type and place. Its text is left out: it may quote the message."""
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((frame for frame in reversed(frames) if "tunewheel_" in frame.filename), frames[-1])
        place = f"{'/'.join(Path(frame.filename).parts[-2:])}, line {frame.lineno}, in {frame.name}"
        reason = f"failed with {type(error).__name__} at {place}; report it, and change the message"
        return cls(field="(handler)", reason=reason)


class Unreadable(InvalidEvent):
    """An upstream record that no service can read: it is no event, or its signature is wrong."""


Refusal = tuple[Undecoded, InvalidEvent]


Warn = Callable[[str, str | None], None]
"""Sets a named warning; the text None takes it back."""


class DeadLetters:
    """Writes the dead letters of one service, and warns of a flood of them."""

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
        """Write the letters of erased messages without content. A service may read its topics again, and the
        content of an erased letter must not come back by that.

        ``is_erased`` says whether an erasure covers a message. ``refresh`` reads all erasures up to now.
        """
        self._is_erased, self._refresh = is_erased, refresh

    def expect(self, topic: str) -> None:
        """Create the counter of ``topic`` with 0."""
        for kind in ("invalid", "crashed"):
            self._counter.add(0, {"topic": topic, "kind": kind})

    def passed(self, topic: str, project: str) -> None:
        """Note a valid message, since floods are measured by the share of refused messages. Call ``passed``
        and ``refuse`` once per message, in the order of the log."""
        self._flood.note(topic, project)

    def refuse(self, record: Undecoded, error: InvalidEvent, *, project: str | None = None) -> None:
        """Note a refused message; ``put`` writes its letter. ``project`` None: the message could not be
        decoded, so the project in its headers is used."""
        if project is None:
            project = record.headers.get("ce_project", b"")[:LONGEST_FIELD].decode("utf-8", "replace")
        self._flood.note(record.position.topic, project, refused=str(error))

    async def put(self, refusals: Sequence[Refusal]) -> None:
        """Write refused records to their dead-letter topics. Call it last, right before the offset is
        committed: a record that is delivered again gets a second letter. Raises TransientError: a dead letter
        could not be written; the offset must not be committed."""
        if refusals and self._refresh is not None:
            await retry(self._refresh, self._backoff, what="reading erasures")
        for record, error in refusals:
            if isinstance(error, Unreadable) and self._is_written_elsewhere(record):
                log.warning("unreadable", **dataclasses.asdict(record.position), reason=str(error))
                continue
            letter, kind = dead_letter(record, error, service=self._service), _kind(error)
            if self._is_erased(record):
                letter, error = withheld(letter), ERASED
            await retry(lambda one=letter: self._publisher.send([one]), self._backoff, what="dead letter")
            self._counter.add(1, {"topic": record.position.topic, "kind": kind})
            log.log(
                logging.ERROR if kind == "crashed" else logging.WARNING,
                "dead_lettered",
                kind=kind,
                topic=record.position.topic,
                partition=record.position.partition,
                offset=record.position.offset,
                field=error.field,
                reason=error.reason,
            )

    def _is_written_elsewhere(self, record: Undecoded) -> bool:
        """Return whether another service writes the one letter of a record that none of them can read."""
        spec = BY_NAME.get(record.position.topic)
        return spec is not None and spec.handled_by[:1] not in ((), (self._service,))

    async def write(self, record: Undecoded, error: InvalidEvent, *, project: str | None = None) -> None:
        """Note a refused message and write its dead letter; see ``refuse`` and ``put``."""
        self.refuse(record, error, project=project)
        await self.put([(record, error)])


class Flood:
    """Warns of each topic and project of whose latest ``window`` messages more than ``limit`` were
    refused."""

    def __init__(self, warn: Warn, *, limit: int, window: int) -> None:
        self._warn = warn
        self._limit = limit
        self._window = window
        self._recent: OrderedDict[tuple[str, str], deque[bool]] = OrderedDict()
        """By topic and project: whether each of the latest messages was refused. Recorded from the first
        refusal on."""
        self._reported: set[tuple[str, str]] = set()

    def note(self, topic: str, project: str, *, refused: str = "") -> None:
        """Note one message. ``refused``: the reason; "" for a valid message."""
        stream = topic, project
        recent = self._recent.get(stream)
        if recent is None:
            if not refused:
                return
            recent = self._recent[stream] = deque(maxlen=self._window)
        recent.append(bool(refused))
        self._recent.move_to_end(stream)
        if refused or stream in self._reported:
            self._tell(stream, sum(recent), len(recent), refused)
        if len(self._recent) > MOST_STREAMS:
            self._forget(next(iter(self._recent)))

    def _tell(self, stream: tuple[str, str], count: int, among: int, latest: str) -> None:
        topic, project = stream
        if count > self._limit and stream not in self._reported:
            self._reported.add(stream)
            text = (
                f"{count} of the latest {among} messages of project {project!r} on {topic} were refused, the "
                f"latest: {latest}. Correct their publisher; `tunewheel dead-letter list` shows all of them"
            )
            self._warn(_named(stream), text)
        elif count <= self._limit and stream in self._reported:
            self._reported.discard(stream)
            self._warn(_named(stream), None)

    def _forget(self, stream: tuple[str, str]) -> None:
        del self._recent[stream]
        if stream in self._reported:
            self._reported.discard(stream)
            self._warn(_named(stream), None)


def _named(stream: tuple[str, str]) -> str:
    return f"dead letters on {stream[0]} of project {stream[1]!r}"


def refused(letter: Undecoded) -> tuple[str, Position]:
    """Return the service that refused a message, and the message's position. Together they identify a dead
    letter, so that duplicates can be counted once.

    A service that is killed before it commits writes its latest letters again. A record that somebody else
    put on a dead-letter topic lacks these headers, and is identified by its own position.
    """
    named = {
        name.removeprefix(HEADER_PREFIX): value.decode("utf-8", "replace")
        for name, value in letter.headers.items()
        if name.startswith(HEADER_PREFIX)
    }
    try:
        source = Position(named["source_topic"], int(named["source_partition"]), int(named["source_offset"]))
        return named["service"], source
    except (KeyError, ValueError):
        return "", letter.position


def original(letter: Undecoded) -> KafkaRecord:
    """Return the message in a dead letter, to be written to its topic again as it was.

    Raises:
        InvalidEvent: the letter does not hold the whole message.
    """
    headers = {name: value for name, value in letter.headers.items() if not name.startswith(HEADER_PREFIX)}
    if f"{HEADER_PREFIX}cut_bytes" in letter.headers:
        raise InvalidEvent(field="letter", reason="holds only the message's beginning; publish it anew")
    if letter.headers.get(f"{HEADER_PREFIX}field") == ERASED.field.encode():
        raise InvalidEvent(field="letter", reason="is of a message that was erased")
    if letter.value is None:
        raise InvalidEvent(field="letter", reason="has no message")
    topic = letter.position.topic.removesuffix(".dlq")
    return KafkaRecord(topic, letter.key or b"", letter.value, headers, is_copy=True)


def letter_id(letter: Undecoded) -> str:
    """Return the name of a dead letter, which all copies of it have."""
    service, source = refused(letter)
    return f"{service}:{source.topic}:{source.partition}:{source.offset}"


def dead_letter(record: Undecoded, error: InvalidEvent, *, service: str) -> KafkaRecord:
    """Build the dead letter: the original value and headers, with additional ``dlq_*`` headers.

    A message that was sent compressed may be too large for a dead letter. Then only the beginning of the
    value is kept. ``dlq_cut_bytes`` and ``dlq_cut_sha256`` hold the length and the hash of the whole value,
    which is still at its source position.
    """
    about = {
        "service": service,
        "kind": _kind(error),
        "field": error.field[:LONGEST_FIELD],
        "reason": error.reason[:LONGEST_REASON],
        "source_topic": record.position.topic,
        "source_partition": str(record.position.partition),
        "source_offset": str(record.position.offset),
    }
    key, value = record.key or b"", record.value or b""
    kept = {name: value for name, value in record.headers.items() if not name.startswith(HEADER_PREFIX)}
    if _size(key, value, kept) > LARGEST:
        about |= {"cut_bytes": str(len(value)), "cut_sha256": content_sha256(value)}
        kept = {name: value for name, value in kept.items() if name.startswith("ce_") and len(value) <= 1_024}
        key, value = key[:LARGEST_KEY], value[: MAX_MESSAGE_BYTES // 2]
    added = {HEADER_PREFIX + name: text.encode("utf-8", "replace") for name, text in about.items()}
    topic = f"{record.letters or record.position.topic}.dlq"
    return KafkaRecord(topic=topic, key=key, value=value, headers=kept | added)


def _kind(error: InvalidEvent) -> str:
    return "crashed" if isinstance(error, Crashed) else "invalid"


def withheld(letter: KafkaRecord) -> KafkaRecord:
    """Return ``letter`` without its content. The refusing service and the source position are kept."""
    places = {name: letter.headers[name] for name in PLACE_HEADERS if name in letter.headers}
    why = {"dlq_field": ERASED.field.encode(), "dlq_reason": ERASED.reason.encode()}
    return dataclasses.replace(letter, key=b"", value=b"", headers=places | why)


def _size(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> int:
    # Each header takes a few bytes in addition to its name and value.
    return len(key) + len(value) + sum(4 * len(name) + len(text) + 16 for name, text in headers.items())

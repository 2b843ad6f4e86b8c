"""The dead letters of all services, and the latest events of topics that carry traffic.

The messages of letters are not kept: an erasure would not find them here. They are read from the log on
request."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from tunewheel_contracts.api.services import DeadLetter
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RedeliveryRequested
from tunewheel_contracts.topics import (
    BY_NAME,
    REVIEW_SUBMITTED,
    TAKEN_AGAIN,
    TOPICS,
    TRAIN_CONTROL,
    TopicSpec,
)
from tunewheel_runtime.deadletter import Check, Position, Undecoded, letter_id, original, refused, unchecked
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import decode, follow
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.waiting import end_all

KEPT = 20_000
"""How many of the latest letters are listed."""
SHOWN_BYTES = 256 << 10
"""How much of a message is shown."""
OWN = "the message is of Tunewheel itself: give the command again that led to it"
ELSEWHERE = "the message lies on another system's topic: publish it there again"
NAMELESS = "the message names no project in its headers: publish it anew"
RecordsAt = Callable[[str, Collection[tuple[int, int]]], Awaitable[Mapping[tuple[int, int], Undecoded]]]
"""Returns the records of a topic at pairs of partition and offset. Raises ``TransientError``."""


async def _none(_: str, __: Collection[tuple[int, int]]) -> Mapping[tuple[int, int], Undecoded]:
    return {}


class Letters:
    """Folds dead letters. A letter that is written twice counts once."""

    def __init__(self, read: RecordsAt = _none) -> None:
        self._read = read
        self._found: dict[str, tuple[DeadLetter, Position]] = {}
        self._again: dict[str, Envelope[RedeliveryRequested]] = {}

    def add(self, letter: Undecoded) -> None:
        found, name = self._found, letter_id(letter)
        found.pop(name, None)
        found[name] = _letter(name, letter), letter.position
        if len(found) > KEPT:
            del found[next(iter(found))]

    def ask_again(self, event: Envelope[Any]) -> None:
        self._again[event.data.letter_id] = event

    def all(self) -> list[DeadLetter]:
        tries = Counter((one.service, one.event_id or one.letter_id) for one, _ in self._found.values())
        alike = Counter(kind_of(one) for one, _ in self._found.values())
        return [self._told(one, tries, alike) for one, _ in self._found.values()]

    def _told(self, one: DeadLetter, tries: Counter[Any], alike: Counter[Any]) -> DeadLetter:
        event = self._again.get(one.letter_id)
        who = event.data.principal if event is not None else None
        return one.model_copy(
            update={
                "tries": tries[one.service, one.event_id or one.letter_id],
                "alike": alike[kind_of(one)],
                "again_at": event.time if event is not None else None,
                "again_by": who.origin if who is not None else None,
            }
        )

    def place_of(self, name: str) -> Position:
        """Return where the newest copy of a letter lies."""
        return self._found[name][1]

    async def message_of(self, name: str) -> bytes | None:
        """Return the message in a letter; None: an erasure has just removed it. Raises TransientError: the
        broker does not answer."""
        topic, partition, offset = (at := self.place_of(name)).topic, at.partition, at.offset
        letter = (await self._read(topic, [(partition, offset)])).get((partition, offset))
        return letter.value if letter is not None and letter_id(letter) == name else None


def kind_of(letter: DeadLetter) -> tuple[str, str, str, str]:
    """Return what letters have in common whose messages were refused for the same reason."""
    return letter.service, letter.topic, letter.field, letter.reason


def visible(text: str) -> str:
    """Return a text in which characters that nobody sees, or that change how others are shown, are
    escaped."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text
    )


def _letter(name: str, letter: Undecoded) -> DeadLetter:
    headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers.items()}
    at = datetime.fromtimestamp(letter.logged_ms / 1000, UTC) if letter.logged_ms is not None else None
    return DeadLetter(
        letter_id=name,
        topic=headers.get("dlq_source_topic", letter.position.topic.removesuffix(".dlq")),
        partition=_number(headers.get("dlq_source_partition")),
        offset=_number(headers.get("dlq_source_offset")),
        service=headers.get("dlq_service", ""),
        field=headers.get("dlq_field", ""),
        reason=headers.get("dlq_reason", ""),
        event_id=headers.get("ce_id", ""),
        kind=headers.get("dlq_kind", "invalid"),
        project=headers.get("ce_project"),
        at=at,
        size=_number(headers.get("dlq_cut_bytes", str(len(letter.value or b"")))),
        not_again=_not_again(letter, headers),
    )


def _not_again(letter: Undecoded, headers: Mapping[str, str]) -> str | None:
    if letter.position.topic not in {topic.dead_letter for topic in TAKEN_AGAIN}:
        return OWN
    if f"{headers.get('dlq_source_topic')}.dlq" != letter.position.topic:
        return ELSEWHERE
    try:
        original(letter)
    except InvalidEvent as error:
        return str(error)
    return None if headers.get("ce_project") else NAMELESS


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else -1


log = structlog.get_logger(__name__)
COUNT_SECONDS = 3.0
DECISIONS = (REVIEW_SUBMITTED.name, TRAIN_CONTROL.name)
"""Topics whose events are shown before a service may refuse them."""


class Traffic:
    """Follows the ends of topics, and dead letters, in the background."""

    def __init__(
        self,
        settings: ServiceSettings,
        topics: Sequence[TopicSpec],
        apply: Callable[[Envelope[Any]], None],
        *,
        refuse: Callable[[Envelope[Any]], None],
        told: Callable[[Undecoded, Envelope[Any] | None], None] = lambda _letter, _event: None,
        check: Check = unchecked,
        latest: int,
    ) -> None:
        """``told`` gets every dead letter, with the event that it holds (``event_in``)."""
        self._options = client_options(settings)
        self._names = [topic.name for topic in topics]
        self._letters = {topic.dead_letter: topic.name for topic in TOPICS if topic.dead_letter_exists}
        self._apply = apply
        self._refuse = refuse
        self._told = told
        self._check = check
        self._latest = latest
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for work in (self._follow, self._follow_letters):
            self._tasks.append(asyncio.create_task(self._patiently(work), name=work.__name__))

    async def stop(self) -> None:
        await end_all(*self._tasks)
        self._tasks.clear()

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except TransientError as error:
                log.warning("traffic_unreadable", work=work.__name__, error=str(error))
                await asyncio.sleep(COUNT_SECONDS)

    async def _follow(self) -> None:
        async for records in follow(self._options, self._names, last=self._latest):
            for record in records:
                with contextlib.suppress(InvalidEvent):  # such an event is counted as a dead letter
                    self._apply(decode(record))

    async def _follow_letters(self) -> None:
        async for letters in follow(self._options, list(self._letters)):
            for letter in letters:
                topic = self._letters[letter.position.topic]
                event = event_in(letter, BY_NAME[topic], self._check)
                self._told(letter, event)
                if event is not None and topic in DECISIONS:
                    self._refuse(event)


def event_in(letter: Undecoded, topic: TopicSpec, check: Check) -> Envelope[Any] | None:
    """Return the event of ``topic`` that became a dead letter. None: the letter holds no such event, or a
    command that nobody signed, which must not undo the real command of the same id."""
    try:
        event = decode(letter, topic)
        check(topic, event, replace(letter, position=refused(letter)[1]))
    except InvalidEvent:
        return None
    return event

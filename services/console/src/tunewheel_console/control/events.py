"""``GET /v1/events``: events as they come, as server-sent events. The latest are held, for readers whose
connection was interrupted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import StreamingResponse
from tunewheel_contracts.api.events import CloudEvent
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.data import ErasureCompleted, RecordIngested
from tunewheel_contracts.events.evaluation import AnswersCompared, ReviewAnswered
from tunewheel_contracts.events.production import DriftDetected, InferenceCompleted
from tunewheel_contracts.events.upstream import ErasureRequested, FeedbackReceived
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated, Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.control.evaluations import is_withheld
from tunewheel_console.project import TRAFFIC, Project
from tunewheel_console.state import ConsoleState

LOOK_SECONDS = 5.0
"""How often the caller's roles are asked anew."""
SILENT_SECONDS = 15.0
"""After so much silence a comment keeps the connection open."""
HOLDS_TEXTS = (InferenceCompleted, FeedbackReceived, RecordIngested)
"""Events that are told to reviewers alone, because they hold texts of users as they came."""
NAMES_PEOPLE = (ErasureRequested, ErasureCompleted)
"""Events that are told to operators alone, because they name a customer."""
BLIND = (ReviewAnswered, AnswersCompared)
"""Events that are not told, because they say which model gave the answer that a person prefers."""
FIGURES = ("contestants", "checks", "requested")
"""The fields of a verdict that are withheld while people review answers."""
Identify = Callable[[Request], Awaitable[Caller]]


def add_events(web: FastAPI, state: ConsoleState, feed: Feed, identify: Identify) -> None:
    """Add the route. ``identify`` returns the caller of a request with its present roles."""

    @web.get(
        "/v1/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events as they come"}},
    )
    @needs(Role.VIEWER)
    async def follow_events(
        request: Request,
        project: Annotated[str | None, Query(description="Only events of this project.")] = None,
        types: Annotated[
            list[str] | None,
            Query(alias="type", description="Only these types. Types of busy topics must be named."),
        ] = None,
        last_event_id: Annotated[str | None, Header(description="Begin after this event.")] = None,
    ) -> StreamingResponse:
        """Events as server-sent events: `id` is the event's id, `event` its type, `data` the CloudEvent. The
        event `gap` says that events are missing. Completions, feedback and records need the role reviewer,
        erasures the role operator."""
        unknown = sorted({*(types or ())} - BY_NAME.keys())
        if unknown:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "type",
                f"{unknown[0]!r} is no type of an event; see docs/events.md",
            )
        for name in types or ():
            caller_of(request).require(role_for(BY_NAME[name].event), project)
        told = Told(state, caller_of(request), project, frozenset(types or ()))
        stream = follow(feed, told, lambda: identify(request), after=last_event_id)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def role_for(event: type[Event]) -> Role:
    """Return the role that events of this class are told to."""
    if issubclass(event, NAMES_PEOPLE):
        return Role.OPERATOR
    return Role.REVIEWER if issubclass(event, HOLDS_TEXTS) else Role.VIEWER


@dataclass
class Told:
    """Which events one caller is told."""

    state: ConsoleState
    caller: Caller
    project: str | None
    types: frozenset[str]

    @property
    def may_listen(self) -> bool:
        return self.caller.may(Role.VIEWER, self.project)

    def __call__(self, event: Envelope[Any]) -> bool:
        data = event.data
        if self.project not in (None, event.project) or (self.types and data.type not in self.types):
            return False
        if isinstance(data, BLIND) or (isinstance(data, TRAFFIC) and not self.types):
            return False
        if isinstance(data, InferenceCompleted) and self._is_reviewed(event.project):
            return False
        return self.caller.may(role_for(type(data)), event.project)

    def _is_reviewed(self, project: str) -> bool:
        """Whether people compare answers of the project, whose models an event would name."""
        return self._holds(project, lambda view: bool(view.reviews.waiting))

    def is_withheld(self, project: str) -> bool:
        """Whether figures of the project's models are withheld, as those of its evaluations are."""
        return self._holds(project, is_withheld)

    def _holds(self, project: str, of_view: Callable[[Project], bool]) -> bool:
        """Whether ``of_view`` holds. A project at rest is not folded for it: it may hold while people are
        asked."""
        if (rest := self.state.projects.resting.get(project)) is not None:
            return rest.is_asked or rest.is_behind
        view = self.state.projects.get(project)
        return view is not None and of_view(view)


async def follow(
    feed: Feed, told: Told, identify: Callable[[], Awaitable[Caller]], *, after: str | None = None
) -> AsyncIterator[str]:
    """Yield the stream's messages, until the caller may not read any more or the process stops."""
    with feed.reader(told, after=after) as reader:
        yield ": events\n\n"
        silent_since = looked_at = time.monotonic()
        while not feed.is_over():
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await reader.news.wait()
            except TimeoutError:
                pass
            now = time.monotonic()
            if now - looked_at >= LOOK_SECONDS:
                looked_at = now
                try:
                    told.caller = await identify()
                except NotAuthenticated:
                    return
                if not told.may_listen:
                    return
            has_gap, events = reader.take()
            if has_gap:
                yield "event: gap\ndata: {}\n\n"
            for event in events:
                if told(event):  # the roles may have changed while it waited
                    yield message_of(event, withheld=told.is_withheld(event.project))
            if events or has_gap:
                silent_since = now
            elif now - silent_since >= SILENT_SECONDS:
                silent_since = now
                yield ": still there\n\n"


def message_of(event: Envelope[Any], *, withheld: bool = False) -> str:
    """Return a message of the server-sent events format (WHATWG HTML §9.2.6). ``withheld``: without figures
    of an evaluation."""
    told = CloudEvent.of(event)
    if withheld:
        told.data.update({name: [] for name in FIGURES if name in told.data})
    if isinstance(event.data, DriftDetected):
        # examples of earlier releases hold users' texts, which an erasure would not reach in held events
        told.data["examples"] = []
    unnamed = {name for name in ("causationid", "correlationid") if getattr(told, name) is None}
    data = told.model_dump_json(exclude=unnamed)
    return f"id: {event.id}\nevent: {event.data.type}\ndata: {data}\n\n"


HELD = 10_000
"""The most events that are held."""
WAITING = 2_000
"""The most events that wait for one reader. A slower reader misses events, and is told so."""
WAITING_BYTES = 8 << 20
"""The most bytes of ``TRAFFIC`` that wait for one reader: two thousand long conversations would fill the
memory."""
Wanted = Callable[[Envelope[Any]], bool]


@dataclass(eq=False)
class Reader:
    """One reader of the feed."""

    wanted: Wanted
    events: deque[Envelope[Any]] = field(default_factory=deque[Envelope[Any]])
    """The events that wait to be told."""
    size: int = 0
    """How many bytes of ``TRAFFIC`` wait."""
    has_gap: bool = False
    """Whether events are missing before those that wait."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while events wait."""

    def add(self, event: Envelope[Any]) -> None:
        size = len(event.data.model_dump_json()) if isinstance(event.data, TRAFFIC) else 0
        if len(self.events) >= WAITING or self.size + size > WAITING_BYTES:
            self.events.clear()
            self.size = 0
            self.has_gap = True
        self.size += size
        self.events.append(event)
        self.news.set()

    def take(self) -> tuple[bool, list[Envelope[Any]]]:
        """Return whether events are missing, and those that wait."""
        found = self.has_gap, list(self.events)
        self.has_gap = False
        self.events.clear()
        self.size = 0
        self.news.clear()
        return found


class Feed:
    """The events of all projects, in the order in which they were read."""

    def __init__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """``is_over`` says whether the process stops, so that its readers should leave."""
        self.is_over = is_over
        self._held: deque[Envelope[Any]] = deque(maxlen=HELD)
        self._readers: set[Reader] = set()

    def add(self, event: Envelope[Any]) -> None:
        # Events with texts of users are told and never held, so no erasure has to find them here.
        if not isinstance(event.data, TRAFFIC):
            self._held.append(event)
        for reader in self._readers:
            if reader.wanted(event):
                reader.add(event)

    @contextmanager
    def reader(self, wanted: Wanted, *, after: str | None = None) -> Iterator[Reader]:
        """Give the events that ``wanted`` accepts: those after the accepted event with the id ``after``, if
        that is still held, and then new ones."""
        reader = Reader(wanted)
        if after is not None:
            newest_first = enumerate(reversed(self._held), 1)
            at = next((n for n, held in newest_first if held.id == after and wanted(held)), None)
            reader.has_gap = at is None
            missed = islice(self._held, len(self._held) - at + 1, None) if at is not None else ()
            reader.events.extend(held for held in missed if wanted(held))
        if reader.events or reader.has_gap:
            reader.news.set()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

"""Streams of events: any cut of the bytes, connections that end, and gaps."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response, StreamingResponse
from tunewheel_client import AsyncClient, Away, Client, Gap, NotAllowed
from tunewheel_client.sse import Message, Reader
from tunewheel_testing.served import served


def event(number: int, **data: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}", "source": "/t", "type": "train.progressed", "subject": "run-1", "project": "desk",
        "time": "2026-01-01T00:00:00Z", "data": data,
    }  # fmt: skip


def sent(number: int, **data: Any) -> bytes:
    body = json.dumps(event(number, **data), ensure_ascii=False)
    return f"id: e{number}\nevent: train.progressed\ndata: {body}\n\n".encode()


STREAM = (
    b": ping\n\n"
    + sent(1, text="a\u2028b\u0085c é")
    + b"retry: 20\r\nevent: gap\r\ndata: {}\r\n\r\n"
    + sent(2)
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]):
    reader, found = Reader(), list[Message]()
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        found += reader.read(STREAM[begin:end])
    assert [message.event for message in found] == ["train.progressed", "gap", "train.progressed"]
    assert [message.id for message in found] == ["e1", "e1", "e2"]
    assert json.loads(found[0].data)["data"]["text"] == "a\u2028b\u0085c é"
    assert reader.retry_seconds == 0.02


def test_a_message_whose_end_was_lost_is_not_told_and_not_skipped():
    reader = Reader()
    assert len(reader.read(sent(1) + sent(2)[:-1])) == 1
    reader.begin()
    assert reader.last_id == "e1"
    assert [message.id for message in reader.read(sent(2))] == ["e2"]


BROKEN = b"the connection ends before a byte"


class Console:
    """Sends the next of ``streams`` to each request, and ends the connection after it."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.asked: list[Request] = []
        self.web = FastAPI()
        self.web.add_route("/v1/events", self.events)

    async def events(self, request: Request) -> Response:
        self.asked.append(request)
        told = self.streams.pop(0) if self.streams else 503
        if isinstance(told, int):
            return JSONResponse({"error": {"message": "m"}}, told)

        async def chunks() -> AsyncIterator[bytes]:
            if told == BROKEN:
                raise ConnectionAbortedError
            yield b"retry: 1\n\n"
            yield told

        return StreamingResponse(chunks(), media_type="text/event-stream")


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    with served(console.web) as url:
        console.url = url  # type: ignore[attr-defined]
        yield console


async def test_a_stream_that_ends_is_resumed_and_a_gap_is_told(console: Any):
    lost = sent(3)[:-9]
    console.streams = [sent(1) + sent(2) + lost, 503, b"event: gap\ndata: {}\n\n" + sent(3)]
    found: list[Any] = []
    async with AsyncClient(console.url, "k") as client:
        following = client.events.follow(
            project="desk", types=["train.progressed", "train.failed"], after="e0"
        )
        async for one in following:
            found.append(one)
            if len(found) == 4:
                await following.aclose()
    assert [one if isinstance(one, Gap) else one.id for one in found] == ["e1", "e2", Gap("e2"), "e3"]
    assert [request.headers["last-event-id"] for request in console.asked] == ["e0", "e2", "e2"]
    assert console.asked[0].url.query == "project=desk&type=train.progressed&type=train.failed"


async def test_a_connection_lost_before_any_event_is_a_gap(console: Any):
    console.streams = [503, b": hello\n\n", sent(1)]
    async with AsyncClient(console.url, "k") as client, client.events.follow() as following:
        assert await anext(following) == Gap(None)
        assert (await anext(following)).id == "e1"  # type: ignore[union-attr]


def test_the_synchronous_client_follows_too(console: Any):
    console.streams = [sent(1, loss=2.0), sent(2)]
    with Client(console.url, "k") as client, client.events.follow() as following:
        assert [next(following).id, next(following).id] == ["e1", "e2"]  # type: ignore[union-attr]


async def test_who_may_not_read_is_told_at_once(console: Any):
    console.streams = [sent(1), 403]
    async with AsyncClient(console.url, "k") as client:
        with pytest.raises(NotAllowed):
            [one async for one in client.events.follow()]


async def test_events_that_come_more_slowly_than_the_patience_are_no_silence(
    console: Any, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr("tunewheel_client.aio.events.time", SimpleNamespace(monotonic=lambda: now[0]))
    console.streams = [sent(1), 503, 503, sent(2), 503]
    async with (
        AsyncClient(console.url, "k") as client,
        client.events.follow(patience_seconds=60.0) as following,
    ):
        assert (await anext(following)).id == "e1"  # type: ignore[union-attr]
        now[0] += 3600.0
        assert (await anext(following)).id == "e2"  # type: ignore[union-attr]
    assert len(console.asked) == 4


async def test_whoever_takes_long_over_a_gap_is_not_told_that_the_console_was_away_meanwhile(
    console: Any, monkeypatch: pytest.MonkeyPatch
):
    now = [1.0]
    monkeypatch.setattr("tunewheel_client.aio.events.time", SimpleNamespace(monotonic=lambda: now[0]))
    console.streams = [b": hello\n\n", 503, BROKEN, sent(1)]
    async with (
        AsyncClient(console.url, "k") as client,
        client.events.follow(patience_seconds=60.0) as following,
    ):
        assert await anext(following) == Gap(None)
        now[0] += 3600.0
        assert await anext(following) == Gap(None)
        assert (await anext(following)).id == "e1"  # type: ignore[union-attr]


async def test_a_console_that_stays_away_ends_the_following(console: Any):
    console.streams = [sent(1)]
    async with AsyncClient(console.url, "k") as client:
        with pytest.raises(Away):
            [one async for one in client.events.follow(patience_seconds=0.0)]
    assert len(console.asked) == 2

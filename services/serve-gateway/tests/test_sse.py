from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_serve_gateway.upstream.protocol import UpstreamBroken
from tunewheel_serve_gateway.upstream.sse import LONGEST_ANSWER, as_event, read_data


async def payloads(parts: list[bytes]) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return [payload async for payload, _ in read_data(body())]


@given(
    st.lists(st.binary(min_size=1).map(lambda b: b"x" + b.translate(None, b"\r\n \t\x0b\x0c") + b"x")),
    st.data(),
)
async def test_events_survive_any_cut(sent: list[bytes], data: st.DataObject):
    whole = b": a comment\n\nevent: e\n" + b"".join(as_event(payload) for payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    edges = [0, *cuts, len(whole)]
    assert await payloads([whole[a:b] for a, b in itertools.pairwise(edges)]) == sent


async def test_each_event_says_whether_another_is_already_received():
    async def body() -> AsyncIterator[bytes]:
        for part in (b"data: a\n\ndata: b\n\nda", b"ta: c\n\n"):
            yield part

    assert [found async for found in read_data(body())] == [(b"a", True), (b"b", False), (b"c", False)]


async def test_carriage_returns_and_a_missing_last_newline_are_taken():
    assert await payloads([b"data: a\r\n\r\ndata:b\r\n\r", b"\ndata: [DONE]"]) == [b"a", b"b", b"[DONE]"]


async def test_an_event_without_end_is_given_up():
    with pytest.raises(UpstreamBroken) as caught:
        await payloads([b"data: ", *[b"x" * (1 << 20)] * (LONGEST_ANSWER >> 20)])
    assert "is engine_url an OpenAI server?" in str(caught.value)

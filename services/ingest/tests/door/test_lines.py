from __future__ import annotations

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.door.bulk import Line, split_lines


async def stream(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def split(chunks: list[bytes], max_bytes: int = 10) -> list[Line]:
    return [line async for line in split_lines(stream(chunks), max_bytes=max_bytes)]


async def test_lines_are_numbered_and_blank_ones_skipped() -> None:
    assert await split([b"a\n\nb", b"c\n"]) == [Line(1, b"a"), Line(3, b"bc")]


async def test_a_long_line_is_named_and_the_next_one_still_read() -> None:
    assert await split([b"ok\n", b"x" * 8, b"x" * 8, b"x\nfine\n"]) == [
        Line(1, b"ok"),
        Line(2, None),
        Line(3, b"fine"),
    ]


async def test_a_long_last_line_without_an_end() -> None:
    assert await split([b"x" * 30]) == [Line(1, None)]


@given(st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b), max_size=8), st.integers(1, 7))
async def test_chunk_borders_do_not_matter(lines: list[bytes], size: int) -> None:
    body = b"\n".join(lines)
    chunks = [body[n : n + size] for n in range(0, len(body), size)]
    assert await split(chunks, 12) == await split([body], 12)

"""Reads JSON Lines as they arrive. The longest allowed line bounds the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One non-blank line; ``number`` counts from 1. ``data`` is None if the line was too long."""

    number: int
    data: bytes | None


async def split_lines(chunks: AsyncIterator[bytes], *, max_bytes: int) -> AsyncIterator[Line]:
    """Yield the lines of a byte stream. A line longer than ``max_bytes`` comes without its data."""
    rest, number, skipping = bytearray(), 0, False
    async for chunk in chunks:
        rest += chunk
        *lines, tail = rest.split(b"\n")
        rest = bytearray(tail)
        for line in lines:
            number += 1
            if skipping or len(line) > max_bytes:
                skipping = False
                yield Line(number, None)
            elif line.strip():
                yield Line(number, bytes(line))
        if len(rest) > max_bytes:
            rest, skipping = bytearray(), True
    if skipping or rest.strip():
        yield Line(number + 1, None if skipping else bytes(rest))

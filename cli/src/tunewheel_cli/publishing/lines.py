"""Reads the lines of a file of any size. The longest allowed line bounds the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO

import pydantic_core

from tunewheel_cli.publishing.items import Found, Refusal

CHUNK_BYTES = 1 << 20
UTF8_BOM = b"\xef\xbb\xbf"

OnBytes = Callable[[int], None]
"""Is called with the number of bytes read since the last call."""


def split_lines(file: BinaryIO, *, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 1, line) for every line; the line is None if it is over ``max_bytes``."""
    rest, number, skipping = b"", 0, False
    while chunk := file.read(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, None if skipping or len(line) > max_bytes else line
            skipping = False
        if len(rest) > max_bytes:
            rest, skipping = b"", True
    if skipping or rest:
        yield number + 1, None if skipping else rest


def read_json_lines(file: BinaryIO, *, max_bytes: int) -> Iterator[Found | Refusal]:
    """Yield the objects of a JSON Lines file. A faulty line is refused without affecting the others."""
    with closing(file):
        for number, line in split_lines(file, max_bytes=max_bytes):
            if line is None:
                yield _refuse(number, "(line)", f"is over {max_bytes} bytes; shorten it")
                continue
            if number == 1:
                line = line.removeprefix(UTF8_BOM)
            if line.strip():
                yield parse_object(number, line)


def parse_object(number: int, line: bytes) -> Found | Refusal:
    """Parse one line as a JSON object."""
    try:
        line.decode("utf-8")
        value = pydantic_core.from_json(line, allow_inf_nan=False)
    except UnicodeDecodeError as error:
        return _refuse(number, "(line)", f"is not UTF-8 (byte {error.start}); save the file as UTF-8")
    except ValueError as error:
        what = str(error).replace(" at line 1 column", " at column")  # the refusal gives the line's number
        return _refuse(number, "(line)", f"is not JSON: {what}; write one whole object a line")
    if not isinstance(value, dict):
        return _refuse(number, "(line)", 'is JSON, but not an object; write {"field": value, …}')
    return Found(f"line {number}", number, value)


def _refuse(number: int, field: str, reason: str) -> Refusal:
    return Refusal(f"line {number}", number, field, reason)

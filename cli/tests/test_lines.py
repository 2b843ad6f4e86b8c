"""Lines of a file of any size, with bounded memory."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_cli.publishing import lines
from tunewheel_cli.publishing.items import Found, Refusal
from tunewheel_cli.publishing.lines import read_json_lines, split_lines


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.integers(1, 40))
def test_lines_are_those_of_the_file_whatever_the_chunks(parts: list[bytes], chunk: int) -> None:
    original = lines.CHUNK_BYTES
    lines.CHUNK_BYTES = chunk
    try:
        found = list(split_lines(io.BytesIO(b"\n".join(parts)), max_bytes=10))
    finally:
        lines.CHUNK_BYTES = original
    expected = [(n, None if len(line) > 10 else line) for n, line in enumerate(parts, 1)]
    if expected and expected[-1][1] == b"":
        expected.pop()
    assert found == expected


def write(folder: Path, content: bytes) -> Path:
    path = folder / "x.jsonl"
    path.write_bytes(content)
    return path


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(read_json_lines(path.open("rb"), max_bytes=100)) == [
        Found("line 1", 1, {"a": 1}),
        Found("line 3", 3, {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "is not JSON: expected ident at column 2; write one whole object a line"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": NaN}', "is not JSON"),
        (b"[1]", "not an object"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7)"),
        (b'{"a": "' + b"x" * 200 + b'"}', "is over 100 bytes"),
    ],
)
def test_a_bad_line_is_refused_by_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, bad, last = read_json_lines(path.open("rb"), max_bytes=100)
    assert isinstance(first, Found)
    assert isinstance(last, Found)
    assert (last.line, last.fields) == (3, {"a": 3})
    assert isinstance(bad, Refusal)
    assert bad.line == 2
    assert reason in bad.reason

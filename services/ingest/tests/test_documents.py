"""Texts of tickets that are HTML, read by the real reading process."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.upstream import DocumentPublished, TicketPublished
from tunewheel_ingest.documents import Documents
from tunewheel_ingest.handlers import made
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.process import ParserProcess
from tunewheel_ingest.records import document_record
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.log import MemoryLog

LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=40, wall_seconds=30, output_bytes=16 << 20)
GMAIL = """<div dir="ltr">The bell is silent.<div>What now?</div><br clear="all"><div>-- <br></div>
<img src="https://example.com/open.gif" width=1><div class="gmail_quote"><div class="gmail_attr">
On Mon, 5 Jan 2026 at 10:02, Help Desk &lt;<a href="mailto:h@b.example">h@b.example</a>&gt; wrote:<br></div>
<blockquote><p>Please oil it.</p><table><tr><td>a</td></tr></table></blockquote></div></div>"""
OUTLOOK = """<html xmlns:o="urn:schemas-microsoft-com:office:office"><head><style>p {margin:0}</style></head>
<body><p class=MsoNormal>It rings &amp; rings.<o:p></o:p></p>
<p><b>From:</b> Help<br><b>Sent:</b> 5 Jan 2026<br></p></body></html>
"""


@pytest.fixture
async def documents() -> AsyncIterator[Documents]:
    parser, nowhere = ParserProcess(LIMITS), None
    yield Documents(nowhere, parser, max_bytes=1)  # type: ignore[arg-type]
    await parser.close()


def ticket(body: str, **fields: Any) -> TicketPublished:
    return TicketPublished(project="desk", ticket_id="T-1", body=body, **fields)


async def test_the_texts_of_an_html_mail_become_markdown(documents: Documents) -> None:
    turns = ({"role": "user", "content": OUTLOOK}, {"role": "assistant", "content": "a < b"})
    read = await documents.read_ticket(ticket(GMAIL, thread=turns, answer="<p>Oil <b>it</b></p>"))
    lines = read.body.split("\n")
    assert lines[:3] == ["The bell is silent.", "", "What now?"]
    assert "> Please oil it." in lines
    assert "open.gif" not in read.body
    assert [turn.content for turn in read.thread] == [
        "It rings & rings.\n\n**From:** Help\n**Sent:** 5 Jan 2026", "a < b"
    ]  # fmt: skip
    assert read.answer == "Oil **it**"


@pytest.mark.parametrize(
    "kept",
    [
        ticket("The page <div>x</div> is blank"),
        ticket("<b>is what I typed"),
        ticket("<div>x</div>", media_type="text/plain"),
        ticket("plain", answer={"html": "<p>x</p>"}),
    ],
)
async def test_other_texts_stay_as_they_are(documents: Documents, kept: TicketPublished) -> None:
    assert await documents.read_ticket(kept) is kept


@pytest.mark.parametrize("answer", ['<div><img src="cid:1"></div>', "<p>&nbsp;</p>"])
async def test_markup_without_a_text_is_no_answer(documents: Documents, answer: str) -> None:
    read = await documents.read_ticket(ticket("It rings", answer=answer))
    assert (read.body, read.answer) == ("It rings", None)


async def test_a_fragment_that_is_declared_as_html_is_read(documents: Documents) -> None:
    read = await documents.read_ticket(ticket("It <i>rings</i> &amp; rings", media_type="text/html"))
    assert read.body == "It *rings* & rings"


@pytest.mark.parametrize(
    "hostile",
    [
        f"<table><tr>{'<td rowspan=999>y</td>' * 300}</tr>{'<tr><td>x</td></tr>' * 100}</table>",
        "<div>" * 9_000 + "x" + "</div>" * 9_000,
    ],
)
async def test_a_hostile_text_is_refused_by_its_field_and_the_next_is_read(
    documents: Documents, hostile: str
) -> None:
    with pytest.raises(InvalidEvent) as refused:
        await documents.read_ticket(ticket(hostile))
    assert refused.value.field == "body"
    assert (await documents.read_ticket(ticket("<p>x</p>"))).body == "x"


@pytest.mark.parametrize(
    ("media_type", "data", "is_taken"),
    [
        ("text/html", b"<script>" + b"x" * (5 << 20) + b"</script><p>It rings.", True),
        ("text/plain", (b"It rings. " * 99 + b"\n\n") * 990, True),
        (
            "text/markdown",
            ("# \u0417\u0432\u043e\u043d\u043e\u043a\n\n" + "\u044f" * 250 + "\n\n").encode() * 3_460,
            True,
        ),
        ("text/plain", (b"It rings. " * 99 + b"\n\n") * 5_000, False),
        ("text/plain", ("\u9234\u304c" * 99 + "\n\n").encode() * 4_000, False),
    ],
    ids=[
        "markup",
        "under a million characters",
        "1.8 MB in short sections",
        "over 4 MiB",
        "under a million characters and over 1.8 MB",
    ],
)
async def test_a_file_is_a_record_if_its_text_is_as_short_as_the_door_says(
    tmp_path: Path, media_type: str, data: bytes, is_taken: bool
) -> None:
    store, parser = ObjectStore("memory://"), ParserProcess(LIMITS)
    (tmp_path / "file").write_bytes(data)
    file = await store.put_file("file", tmp_path / "file", sha256=hashlib.sha256(data).hexdigest())
    document = DocumentPublished(project="desk", document_id="a", media_type=media_type, file=file)
    event = MemoryLog().new(document)
    try:
        with (
            nullcontext()
            if is_taken
            else pytest.raises(InvalidEvent, match=r"publish (it|the document) in parts")
        ):
            parsed = await Documents(store, parser, max_bytes=64 << 20).read(document)
            assert made(document_record(event, parsed), event) is not None
    finally:
        await parser.close()

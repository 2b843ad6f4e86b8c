"""Texts of tickets that are HTML, read by the real reading process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_ingest.documents import Documents
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.process import ParserProcess

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

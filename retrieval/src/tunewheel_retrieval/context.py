"""Passages as a part of a prompt: what fits, how a passage stands there as data, and what an answer cites.

A passage is written by whoever may publish documents, and read by a model that follows instructions (indirect
prompt injection: Greshake et al., "Not what you've signed up for", AISec 2023). Nothing makes a model ignore
what it reads. What is done here makes sure that a passage cannot leave its place in the prompt:

- It stands between two fences that are longer than any run of the same character within the passages.
- Special tokens of chat templates are broken up, so that no tokenizer reads the end of a message in them.
- Characters that a reader cannot see are taken out: controls, overrides of the writing direction, tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewheel_contracts.formats.retrieval_spec import PLACEHOLDER

from tunewheel_retrieval.hits import Hit, Passage

FENCE = "`"
SHORTEST_FENCE = 3
LARGEST_HEADER_BYTES = 4096
LONGEST_LINE = 200
"""Characters of a heading or title, in a prompt and in a source."""

_LINE_BREAKS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1 controls without tab and line breaks
    r"\u00ad\u200b\u200e\u200f\u2060-\u2064\ufeff"  # soft hyphen, zero width, marks of direction
    r"\u202a-\u202e\u2066-\u206f"  # embeddings, overrides and isolates of direction (Trojan Source, 2021)
    r"\U000e0000-\U000e007f\U000e0100-\U000e01ef]"  # tags and variants, which spell text that no font shows
)
_SPECIAL_TOKENS = re.compile(
    r"<(?=[|\uff5c][^\n<>]{1,64}[|\uff5c]>)"  # ChatML, Llama 3, Phi, GPT-OSS, Command R; DeepSeek's wide bars
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|think|tools?|tool_calls?|tool_responses?|start_of_turn|end_of_turn)>)"
    r"|<(?=/?<?/?SYS>>)"  # Llama 2
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK)\])",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"[\t\n -;=-Z\\-~\u00a0-\u00ac\u00ae-\u1fff\u2010-\u2027\u2030-\u205f\u2070-\ufefe\uff00-\uffff]*"
)
"""Text in which the three patterns above find nothing: to see that takes a fiftieth of their time."""


@dataclass(frozen=True, slots=True)
class Source:
    """What an answer cites: a section of one version of a document."""

    document: str
    heading: str
    version: str
    """The id of the record: it changes with every change of the document."""


def fit(hits: Iterable[Hit], *, budget: int) -> tuple[Hit, ...]:
    """Return the hits whose passages fit into ``budget`` tokens together, in their order. One that is too
    long for what is left is skipped, and a shorter one after it may still come in. Tokens are those that the
    index counted; titles, headings and fences come on top."""
    taken: list[Hit] = []
    left = budget
    for hit in hits:
        if hit.passage.tokens <= left:
            taken.append(hit)
            left -= hit.passage.tokens
    return tuple(taken)


def with_passages(template: str, hits: Sequence[Hit]) -> str:
    """Return ``template`` with the passages of ``hits`` in place of its ``{passages}``, each in a fence and
    under the number of its source (see ``sources``)."""
    numbers = {source: n for n, source in enumerate(sources(hits), 1)}
    texts = [f"{_label(hit.passage)}\n\n{as_data(hit.passage.text)}".strip() for hit in hits]
    fence = _fence_around(texts)
    blocks = [
        f"[{numbers[_source_of(hit.passage)]}]\n{fence}\n{text}\n{fence}"
        for hit, text in zip(hits, texts, strict=True)
    ]
    before, _, after = template.partition(PLACEHOLDER)
    return before + "\n\n".join(blocks) + after


def sources(hits: Iterable[Hit]) -> tuple[Source, ...]:
    """Return each section once, in the order of the hits: the first is number 1."""
    return tuple(dict.fromkeys(_source_of(hit.passage) for hit in hits))


def sources_header(cited: Sequence[Source]) -> str:
    """Return ``cited`` as JSON for a header of HTTP: ASCII in one line, at most 4 KiB. Where that is too
    little, the last sources are left out."""
    told = [json.dumps(_as_json(source), separators=(",", ":")) for source in cited]
    while told and sum(map(len, told)) + len(told) + 1 > LARGEST_HEADER_BYTES:
        told.pop()
    return f"[{','.join(told)}]"


def sources_text(cited: Sequence[Source]) -> str:
    """Return ``cited`` as the end of an answer in plain text; "" where there is none."""
    lines = [f"[{n}] {_line_of(source)}" for n, source in enumerate(cited, 1)]
    return "\n\nSources:\n" + "\n".join(lines) if lines else ""


def as_data(text: str) -> str:
    """Return ``text`` without characters that nobody sees, and with special tokens of chat templates broken
    up by a space. Words, layout and every visible character stay."""
    text = _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))
    return _SPECIAL_TOKENS.sub(lambda found: f"{found[0]} ", text)


def _fence_around(texts: Iterable[str]) -> str:
    """Return a fence that no line of ``texts`` can close (CommonMark 0.31, 4.5: a closing fence is at least
    as long as the opening one)."""
    longest = max((len(run) for text in texts for run in re.findall(f"{FENCE}+", text)), default=0)
    return FENCE * max(SHORTEST_FENCE, longest + 1)


def _label(passage: Passage) -> str:
    """Return title and heading in one line. A document chooses them, so they stand inside the fence."""
    return " > ".join(part for part in (_line(passage.title), _line(passage.heading)) if part)


def _line(text: str) -> str:
    return " ".join(as_data(text).split())[:LONGEST_LINE]


def _source_of(passage: Passage) -> Source:
    return Source(passage.document_id, _line(passage.heading), passage.record_id)


def _as_json(source: Source) -> dict[str, str]:
    return {"document": source.document, "heading": source.heading, "version": source.version}


def _line_of(source: Source) -> str:
    document = _line(source.document)
    return f"{document}, {source.heading}" if source.heading else document

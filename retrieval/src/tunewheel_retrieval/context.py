"""Puts passages into a prompt, as data, within a budget of tokens, and makes the sources that an answer
cites.

Whoever may publish documents writes the passages, and a model that follows instructions reads them (indirect
prompt injection: Greshake et al., "Not what you've signed up for", AISec 2023). No measure makes a model
ignore instructions in a passage. The measures here keep a passage within its place in the prompt:

- Each passage is between two fences that are longer than any run of the same character in the passages.
- Special tokens of chat templates are broken up, so that no tokenizer reads the end of a message in them.
- Invisible characters are removed: controls, overrides of the writing direction, tags.
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
"""The most characters of a heading or title, in a prompt and in a source."""

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
"""Matches only text in which the three patterns above find nothing, in a fiftieth of their time."""


@dataclass(frozen=True, slots=True)
class Source:
    """A section of one version of a document, cited by an answer."""

    document: str
    heading: str
    version: str
    """The record's id, which changes with every change of the document."""


def fit(hits: Iterable[Hit], *, budget: int) -> tuple[Hit, ...]:
    """Return the hits whose passages fit into ``budget`` tokens together, in their order.

    A hit that is too long for the rest of the budget is skipped, and a shorter one after it may still fit.
    Tokens are as counted by the index, without titles, headings and fences.
    """
    taken: list[Hit] = []
    left = budget
    for hit in hits:
        if hit.passage.tokens <= left:
            taken.append(hit)
            left -= hit.passage.tokens
    return tuple(taken)


def with_passages(template: str, hits: Sequence[Hit]) -> str:
    """Return ``template`` with ``{passages}`` replaced by the passages of ``hits``, each in a fence and with
    the number of its source (see ``sources``)."""
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
    """Return ``cited`` as JSON for an HTTP header: one line of ASCII, at most 4 KiB. The last sources are
    left out if they do not fit."""
    told = [json.dumps(_as_json(source), separators=(",", ":")) for source in cited]
    while told and sum(map(len, told)) + len(told) + 1 > LARGEST_HEADER_BYTES:
        told.pop()
    return f"[{','.join(told)}]"


def sources_text(cited: Sequence[Source]) -> str:
    """Return ``cited`` as plain text for the end of an answer; "" if there is none."""
    lines = [f"[{n}] {_line_of(source)}" for n, source in enumerate(cited, 1)]
    return "\n\nSources:\n" + "\n".join(lines) if lines else ""


def as_data(text: str) -> str:
    """Return ``text`` without invisible characters, and with special tokens of chat templates broken up by a
    space. All visible characters and the layout stay."""
    text = _UNSEEN.sub("", _LINE_BREAKS.sub("\n", text))
    return _SPECIAL_TOKENS.sub(lambda found: f"{found[0]} ", text)


def _fence_around(texts: Iterable[str]) -> str:
    """Return a fence that no line of ``texts`` can close (CommonMark 0.31, 4.5: a closing fence is at least
    as long as the opening one)."""
    longest = max((len(run) for text in texts for run in re.findall(f"{FENCE}+", text)), default=0)
    return FENCE * max(SHORTEST_FENCE, longest + 1)


def _label(passage: Passage) -> str:
    """Return title and heading in one line. They come from the document, so they belong inside the fence."""
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

"""Cuts sections into passages within a budget of tokens. A passage never crosses a heading.

Paragraphs, tables and code blocks stay whole if the budget allows it. A block that exceeds the budget is cut:
prose between sentences, then between words; a table between rows, with its head repeated; code between lines,
with each part fenced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunewheel_contracts.formats.document import DocumentSection

from tunewheel_retrieval.sections import Section, markdown_of

_PARAGRAPHS = re.compile(r"\n{2,}")
_SENTENCE_END = re.compile(r"(?<=[.!?。؟])\s+")
Measure = Callable[[str], int]
Sizes = Callable[[Sequence[str]], list[int]]
"""Returns the number of tokens of each text."""
BYTES_PER_TOKEN = 4


def estimated_tokens(text: str) -> int:
    """Estimate a text's tokens for a byte-level tokenizer: a quarter of its UTF-8 bytes, rounded up. No
    tokenizer is needed, so that index and gateway count alike."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def estimated_sizes(texts: Sequence[str]) -> list[int]:
    """Return ``estimated_tokens`` of each text."""
    return [estimated_tokens(text) for text in texts]


def passages_of(section: Section, sizes_of: Sizes, *, max_tokens: int, overlap: int) -> list[str]:
    """Return the passages of ``section``, in order, each at most ``max_tokens`` tokens.

    ``overlap``: the most tokens of prose that a passage repeats from the previous one. A single word or line
    longer than the budget becomes a passage of its own, which exceeds the budget.
    """

    def measure(text: str) -> int:
        return sizes_of([text])[0]

    blocks = [block for piece in section.pieces for block in _blocks(piece, measure, max_tokens)]
    sizes = sizes_of([text for text, _ in blocks])
    packed: list[list[tuple[str, bool]]] = []
    room = 0
    for (text, is_prose), size in zip(blocks, sizes, strict=True):
        if packed and size + 1 <= room:
            packed[-1].append((text, is_prose))
            room -= size + 1
            continue
        tail = _tail(packed[-1][-1], measure, min(overlap, max_tokens - size - 1)) if packed else ""
        packed.append([(tail, True)] * bool(tail) + [(text, is_prose)])
        room = max_tokens - size - (measure(tail) + 1 if tail else 0)
    passages = [[text for text, _ in several] for several in packed]
    return _joined(passages, "\n\n".join, measure, max_tokens)


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``. A list item or a line ends a sentence."""
    return [part.strip() for line in text.split("\n") for part in _SENTENCE_END.split(line) if part.strip()]


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of ``text``, which blank lines separate."""
    return [part for part in (raw.strip("\n") for raw in _PARAGRAPHS.split(text)) if part.strip()]


def _blocks(piece: DocumentSection, measure: Measure, budget: int) -> list[tuple[str, bool]]:
    """Return the blocks, each within the budget, as (text, whether it is prose)."""
    if piece.kind == "prose":
        found = [
            part for paragraph in paragraphs(piece.text) for part in _cut_prose(paragraph, measure, budget)
        ]
        return [(text, True) for text in found]
    whole = markdown_of(piece)
    if measure(whole) <= budget:
        return [(whole, False)]
    parts = (
        _cut_table(piece.text, measure, budget)
        if piece.kind == "table"
        else _cut_code(piece, measure, budget)
    )
    return [(text, False) for text in parts]


def _cut_prose(paragraph: str, measure: Measure, budget: int) -> list[str]:
    if measure(paragraph) <= budget:
        return [paragraph]
    lines = paragraph.split("\n")
    if len(lines) > 1:
        fitting = _packed(lines, measure, budget, "\n")
        return [
            part
            for text in fitting
            for part in (_cut_line(text, measure, budget) if "\n" not in text else [text])
        ]
    return _cut_line(paragraph, measure, budget)


def _cut_line(line: str, measure: Measure, budget: int) -> list[str]:
    parts = [part for part in _SENTENCE_END.split(line) if part]
    fitting = _packed(parts, measure, budget, " ")
    cut: list[str] = []
    for text in fitting:
        cut += [text] if measure(text) <= budget else _packed(text.split(), measure, budget, " ")
    return cut


def _cut_table(text: str, measure: Measure, budget: int) -> list[str]:
    lines = text.split("\n")
    head = "\n".join(lines[:2])
    room = budget - measure(head) - 1
    if len(lines) < 4 or room < 1:
        return [text]
    return [f"{head}\n{rows}" for rows in _packed(lines[2:], measure, room, "\n")]


def _cut_code(piece: DocumentSection, measure: Measure, budget: int) -> list[str]:
    fences = measure(markdown_of(piece.model_copy(update={"text": ""})))
    parts = _packed(piece.text.split("\n"), measure, max(1, budget - fences - 2), "\n")

    def fenced(lines: Sequence[str]) -> str:
        return markdown_of(piece.model_copy(update={"text": "\n".join(lines).strip("\n")}))

    return _joined([part.split("\n") for part in parts if part.strip()], fenced, measure, budget)


def _packed(parts: Sequence[str], measure: Measure, budget: int, joint: str) -> list[str]:
    """Join neighbours while they fit the budget together. Sizes are added, so that each part is measured
    once."""
    joined: list[list[str]] = []
    room = 0
    for part in parts:
        size = measure(part) + 1
        if joined and size <= room:
            joined[-1].append(part)
            room -= size
        else:
            joined.append([part])
            room = budget - size + 1
    return _joined(joined, joint.join, measure, budget)


def _joined(
    groups: Sequence[Sequence[str]], join: Callable[[Sequence[str]], str], measure: Measure, budget: int
) -> list[str]:
    """Join each group. A joined group that exceeds the budget, unlike the sum of its parts, is halved."""
    texts: list[str] = []
    for group in groups:
        text = join(group)
        if len(group) > 1 and measure(text) > budget:
            half = len(group) // 2
            texts += _joined([group[:half], group[half:]], join, measure, budget)
        else:
            texts.append(text)
    return texts


def _tail(block: tuple[str, bool], measure: Measure, budget: int) -> str:
    """Return the last sentences of a prose block within ``budget`` tokens."""
    text, is_prose = block
    if not is_prose or budget < 1:
        return ""
    kept: list[str] = []
    for sentence in reversed(sentences(text)):
        budget -= measure(sentence) + 1
        if budget < 0:
            break
        kept.insert(0, sentence)
    return " ".join(kept)

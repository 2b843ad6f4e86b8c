"""Public documents as sections without their own heading, and questions whose section is known.

``headings``: the question is a section's last heading after its document's title; the section is indexed
without that heading. ``tickets``: the question is a customer's from banking77's test set, and each of its
training questions with the same intent is a right answer.
"""

from __future__ import annotations

import csv
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from corpus import DATA
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_ingest.parsing.markdown import sections_of

SEED = 20_261_127
FEWEST_WORDS = 12
"""A section with fewer is a signpost to another."""
OLDER = "v2019-01-14"
"""PagerDuty's documents lie there in two versions, whose sections would answer the same questions."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Text:
    """One thing to find."""

    name: str
    title: str
    sections: tuple[DocumentSection, ...]


@dataclass(frozen=True, slots=True)
class Questions:
    """Texts, and questions with the names of the texts that answer them."""

    texts: tuple[Text, ...]
    asked: tuple[tuple[str, frozenset[str]], ...]


def headings(count: int, *, sections: int | None = None) -> Questions:
    """Return the sections of the public SOPs, or so many drawn from them, and ``count`` questions made of
    their headings."""
    texts: list[Text] = []
    asked: list[tuple[str, frozenset[str]]] = []
    found = sorted(path for root in DATA.glob("sop_*") for path in root.rglob("*.md"))
    for path in (path for path in found if OLDER not in path.parts):
        below: dict[tuple[str, ...], list[DocumentSection]] = {}
        for piece in sections_of(path.read_text("utf-8", "replace")):
            below.setdefault(piece.path, []).append(piece)
        for number, (place, pieces) in enumerate(below.items()):
            if not place or sum(len(piece.text.split()) for piece in pieces) < FEWEST_WORDS:
                continue
            name = f"{path.relative_to(DATA)}#{number}"
            shorter = tuple(piece.model_copy(update={"path": place[:-1]}) for piece in pieces)
            texts.append(Text(name, path.stem, shorter))
            asked.append((f"{_words(path.stem)} {_words(place[-1])}", frozenset({name})))
    random.Random(SEED).shuffle(asked)
    drawn = {name for _, right in asked[:sections] for name in right}
    kept = tuple(text for text in texts if text.name in drawn)
    return Questions(kept, tuple(asked[:count]))


def tickets(count: int) -> Questions:
    """Return banking77's 10,003 training questions, and ``count`` of its test set."""
    texts, of_intent = [], dict[str, set[str]]()
    for number, (text, intent) in enumerate(_rows("train")):
        texts.append(Text(f"t-{number:05}", "", (DocumentSection(text=text),)))
        of_intent.setdefault(intent, set()).add(texts[-1].name)
    asked = [(text, frozenset(of_intent[intent])) for text, intent in _rows("test")]
    random.Random(SEED).shuffle(asked)
    return Questions(tuple(texts), tuple(asked[:count]))


def figures(found: Iterable[Sequence[str]], questions: Questions) -> Mapping[str, float]:
    """Return recall at 1 and 5 (share of questions with a right text among so many), the mean reciprocal rank
    among ten, and nDCG at 10 (Järvelin and Kekäläinen, TOIS 2002, gains of 0 and 1)."""
    sums = dict.fromkeys(("recall_at_1", "recall_at_5", "mrr_at_10", "ndcg_at_10"), 0.0)
    for names, (_, right) in zip(found, questions.asked, strict=True):
        places = [place for place, name in enumerate(dict.fromkeys(names)) if name in right and place < 10]
        ideal = sum(1 / math.log2(2 + place) for place in range(min(10, len(right))))
        sums["recall_at_1"] += 0 in places
        sums["recall_at_5"] += any(place < 5 for place in places)
        sums["mrr_at_10"] += 1 / (1 + places[0]) if places else 0
        sums["ndcg_at_10"] += sum(1 / math.log2(2 + place) for place in places) / ideal
    return {name: round(value / len(questions.asked), 3) for name, value in sums.items()}


def _rows(name: str) -> list[tuple[str, str]]:
    with (DATA / "banking77" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def _words(name: str) -> str:
    return " ".join(_CAMEL.sub(" ", re.sub(r"\W|_", " ", name)).split())

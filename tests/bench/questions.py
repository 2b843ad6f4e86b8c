"""Real questions as scored traffic: what a reference covers, what it does not, and streams of both.

banking77's questions, of which some intents are held back as new, and, as another world, nlupp's hotels.
Known traffic is drawn from prompts that are not in the reference.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tunewheel_contracts.events.monitoring import Encoded, InferenceScored
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder, Vectors, unit_length
from tunewheel_monitor.coverage import LEVELS, ODD, Coverage, Encoding
from tunewheel_monitor.detectors.picking import SCALE, decoded, encoded
from tunewheel_monitor.reference import shortest_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HOTELS = 0
"""Instead of a number of new intents: the new questions are nlupp's."""
MOST_SPARE = 2_000
"""Of the train split's prompts that are not in the reference: known traffic, beside the test split's."""
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 100
GREETINGS = (
    "hi", "hello", "hey", "thanks", "thank you", "ok", "okay", "hello there", "hi there", "good morning",
    "good afternoon", "good evening", "thanks a lot", "bye", "goodbye", "yes", "no", "great", "perfect",
    "cheers", "hi team", "are you there", "anyone there", "help", "i need help", "can you help me",
    "talk to a human", "agent please", "call me back", "got it", "cool", "nice", "test", "ping",
    "sent from my iphone", "how are you", "what can you do", "who are you", "start", "menu", "cancel",
    "stop", "wait", "one moment", "never mind", "sorry", "good day", "dear sir or madam", "best regards",
    "kind regards",
)  # fmt: skip
SAID = ("{}", "{}!", "{}.", "{} please", "ok {}", "{} :)", "{}, thank you", "hey {}")
Rng = np.random.Generator
Stream = Sequence[int]


@dataclass(frozen=True)
class Questions:
    """Real prompts, embedded: known ones of two splits, and another world's."""

    texts: list[str]
    vectors: Vectors
    intents: Any
    held_out: Any
    """(prompts,): of banking77's own test split."""
    hotels: Any
    """(prompts,): of nlupp."""
    encoded: Vectors | None = None
    """By the sentence encoder; None: static vectors judge alone."""


@dataclass
class Scene:
    """A reference, the prompts that traffic may hold, and how the reference scores them."""

    coverage: Coverage
    known: Any
    """Which ``items`` are of the reference's intents; none is in the reference."""
    new: dict[int, Any]
    """By number of new intents: which ``items`` are of those."""
    items: list[InferenceScored]
    intents: Any
    """By item."""
    right: Any
    """By item: whether the nearest question of the reference has the prompt's intent."""
    chosen: Any
    """The reference's questions, as rows of ``Questions``."""
    rows: Any
    """By item: its row of ``Questions``."""
    shortest: int
    """The characters that a question must have to be compared."""
    encoding: Encoding | None = None


ENCODER = SentenceEmbedder()


def encode(questions: Questions) -> tuple[Questions, float]:
    """Return the questions with the encoder's vectors too, and how many it encoded in a second."""
    ENCODER.units(["warm up"])
    started = time.perf_counter()
    vectors = ENCODER.units(questions.texts)
    return replace(questions, encoded=vectors), len(vectors) / (time.perf_counter() - started)


def load() -> tuple[Questions, float]:
    texts: list[str] = []
    intents: list[str] = []
    splits: list[int] = []
    for number, split in enumerate(("train", "test")):
        with (DATA / "banking77" / f"{split}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                texts.append(row["text"])
                intents.append(row["category"])
                splits.append(number)
    for path in sorted((DATA / "nlupp" / "hotels").glob("fold*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            texts.append(row["text"])
            intents.append("hotels")
            splits.append(2)
    embedder = StaticEmbedder()
    embedder.embed(["warm up"])
    started = time.perf_counter()
    vectors = embedder.embed(texts)
    per_second = len(texts) / (time.perf_counter() - started)
    kinds = np.array(splits)
    return Questions(texts, vectors, np.array(intents), kinds == 1, kinds == 2), per_second


def scene(
    questions: Questions, size: int, group: Sequence[int], rng: Rng, *,
    share: float = 0.0, dropped: float = 0.0, wrong: float = 0.0,
) -> Scene:  # fmt: skip
    """Draw which intents are new, and a reference of the others from banking77's train split. A ``share`` of
    the reference's questions is in it a second time, with a share ``dropped`` of the words left out; without
    any, as copies. A share ``wrong`` of the reference's labels is another intent's."""
    banking = np.unique(questions.intents[~questions.hotels])
    fresh = rng.choice(banking, max(group), replace=False)
    is_known = ~np.isin(questions.intents, fresh) & ~questions.hotels
    pool = rng.permutation(np.where(is_known & ~questions.held_out)[0])
    again = pool[: round(size * share / (1 + share))]
    if len(again):
        pool = np.concatenate([pool[: size - len(again)], again, pool[size:]])
    chosen, vectors, hello = pool[:size], questions.vectors[pool[:size]], list[str]()
    if len(again):
        words = [questions.texts[n].split() for n in again]
        kept = [" ".join(word for word in some if rng.random() >= dropped) or some[0] for some in words]
        hello = [("Hello, " if dropped and rng.random() < 0.5 else "") + text for text in kept]
        vectors = np.concatenate([vectors[: size - len(again)], StaticEmbedder().embed(hello)])
    taught = questions.intents[chosen]
    if wrong:
        taught = np.where(rng.random(size) < wrong, rng.permutation(taught), taught)
    coverage = Coverage.fit(vectors, taught.tolist())
    encoding = None
    if questions.encoded is not None:
        sharp = questions.encoded[chosen[: size - len(again)]]
        sharp = np.concatenate([sharp, ENCODER.units(hello)]) if hello else sharp
        encoding = Encoding("encoder", Coverage.fit(sharp, taught.tolist()))
    known = np.concatenate([np.where(is_known & questions.held_out)[0], pool[size:][:MOST_SPARE]])
    asked = np.concatenate([known, np.where(~is_known)[0]])
    scores, units = coverage.score(questions.vectors[asked]), unit_length(questions.vectors[asked])
    odd = coverage.facts.levels[LEVELS.index(ODD)]
    labels = taught[scores.nearest]
    items = [
        InferenceScored.model_construct(
            project="desk", completion_id=f"c-{n}", scored=f"c-{n}", model_id="m", role=RouteRole.PRODUCTION,
            at=START, dataset_id="ds-1", cell=int(scores.cell[n]), novelty=float(scores.novelty[n]),
            novel=bool(scores.novel[n]), vector=encoded(units[n]) if scores.novelty[n] > odd else None,
            label=str(labels[n]),
        )
        for n in range(len(asked))
    ]  # fmt: skip
    if encoding is not None and questions.encoded is not None:
        told = told_of(encoding, questions.encoded[asked])
        items = [item.model_copy(update={"encoded": one}) for item, one in zip(items, told, strict=True)]
    shortest = shortest_of([questions.texts[n] for n in chosen])
    items = [judged(item, questions.texts[n], shortest) for item, n in zip(items, asked, strict=True)]
    intents = questions.intents[asked]
    new = {
        count: np.where(np.isin(intents, fresh[:count]) if count else questions.hotels[asked])[0]
        for count in group
    }
    right = labels == intents
    return Scene(
        coverage, np.arange(len(known)), new, items, intents, right, chosen, asked, shortest, encoding
    )


def judged(item: InferenceScored, text: str, shortest: int) -> InferenceScored:
    """Return ``item`` as the monitor scores it: a text that is too short has no figures of the reference."""
    if len(text) >= shortest:
        return item
    figures = ("cell", "novelty", "novel", "vector", "encoded")
    return item.model_copy(update=dict.fromkeys(figures))


def told_of(encoding: Encoding, vectors: Vectors) -> list[Encoded]:
    """Return the scores of questions by the encoder."""
    found, odd = encoding.coverage.score(vectors), encoding.coverage.facts.levels[LEVELS.index(ODD)]
    figures = zip(found.cell.tolist(), found.novelty.tolist(), found.novel.tolist(), vectors, strict=True)
    return [
        Encoded(
            encoder=encoding.encoder, cell=c, novelty=d, novel=o, vector=encoded(v) if d > odd else None
        )
        for c, d, o, v in figures
    ]  # fmt: skip


def shifted(drawn: Scene, count: int, new: int, shift: float, rng: Rng) -> Stream:
    """Draw prompts, a share ``shift`` of them of ``new`` new intents, without repetition as far as there are
    any."""
    fresh = rng.random(count) < shift
    known = rng.permutation(drawn.known)
    others = np.resize(rng.permutation(drawn.new[new]), count)
    return np.where(fresh, others, np.resize(known, count)).tolist()


def worse(drawn: Scene, stream: Stream, *, points: float = 0.03) -> bool:
    """Whether the nearest neighbour's label was right less often in the stream than on known prompts."""
    return float(drawn.right[list(stream)].mean()) < float(drawn.right[drawn.known].mean()) - points


def evenly(drawn: Scene, count: int, rng: Rng) -> Stream:
    return rng.choice(drawn.known, count).tolist()


def zipf(drawn: Scene, count: int, rng: Rng) -> Stream:
    by_intent = intents_of(drawn)
    return of_intents(by_intent, popularity(len(by_intent), rng), count, rng)


def reordered(drawn: Scene, count: int, rng: Rng) -> Stream:
    """Popularity moves from one order to another within 40 windows, and on to the next."""
    by_intent = intents_of(drawn)
    stream: list[int] = []
    before, after = popularity(len(by_intent), rng), popularity(len(by_intent), rng)
    while len(stream) < count:
        for step in range(40):
            shares = before + (after - before) * step / 40
            stream += of_intents(by_intent, shares, WINDOW, rng)
        before, after = after, popularity(len(by_intent), rng)
    return stream[:count]


def bursts(drawn: Scene, count: int, rng: Rng) -> Stream:
    """In each window, four in five prompts are of one known intent, another each time."""
    by_intent, stream = intents_of(drawn), list[int]()
    while len(stream) < count:
        shares = np.full(len(by_intent), 0.2 / len(by_intent))
        shares[rng.integers(len(by_intent))] += 0.8
        stream += of_intents(by_intent, shares, WINDOW, rng)
    return stream[:count]


def intents_of(drawn: Scene) -> list[Any]:
    """Return the known prompts by intent."""
    intents = drawn.intents[drawn.known]
    return [drawn.known[intents == intent] for intent in np.unique(intents)]


def popularity(kinds: int, rng: Rng) -> Any:
    shares = 1 / np.arange(1, kinds + 1)
    return rng.permutation(shares / shares.sum())


def of_intents(by_intent: Sequence[Any], shares: Any, count: int, rng: Rng) -> list[int]:
    chosen = rng.choice(len(by_intent), count, p=shares)
    return [int(by_intent[kind][int(rng.random() * len(by_intent[kind]))]) for kind in chosen]


def turned_bursts(drawn: Scene, count: int, rng: Rng) -> Stream:
    """Popularity turns over as in ``reordered``, and in every second window there is a burst."""
    calm, hot = reordered(drawn, count, rng), bursts(drawn, count, rng)
    return [(hot if n // WINDOW % 2 else calm)[n] for n in range(count)]


def another(item: InferenceScored, rng: Rng) -> InferenceScored:
    """Return ``item`` as of another text with the same scores. Streams are longer than the data, and the
    monitor tells a text that comes again by its vector."""

    def changed(vector: str | None) -> str | None:
        if vector is None:
            return None
        components = decoded(vector)
        components[rng.integers(len(components), size=3)] += rng.choice([-1, 1]) / SCALE
        return encoded(components)

    found = item.encoded and item.encoded.model_copy(update={"vector": changed(item.encoded.vector)})
    return item.model_copy(update={"vector": changed(item.vector), "encoded": found})


def further(drawn: Scene, texts: Sequence[str]) -> list[InferenceScored]:
    """Return further texts as the scene's reference scores them."""
    vectors = StaticEmbedder().embed(texts)
    scores, units = drawn.coverage.score(vectors), unit_length(vectors)
    odd = drawn.coverage.facts.levels[LEVELS.index(ODD)]
    told = told_of(drawn.encoding, ENCODER.units(texts)) if drawn.encoding else [None] * len(texts)
    items = [
        drawn.items[0].model_copy(
            update={
                "completion_id": f"f-{n}", "novelty": float(scores.novelty[n]),
                "novel": bool(scores.novel[n]), "cell": int(scores.cell[n]), "encoded": told[n],
                "vector": encoded(units[n]) if scores.novelty[n] > odd else None,
            }
        )
        for n in range(len(texts))
    ]  # fmt: skip
    return [judged(item, text, drawn.shortest) for item, text in zip(items, texts, strict=True)]


def greeted(drawn: Scene, count: int, rng: Rng, *, share: float, forms: int) -> list[InferenceScored]:
    """Draw known prompts, a ``share`` of which is one of so many ``forms`` of greetings, by Zipf's law.
    Each is another user's."""
    every = [said.format(word) for said in SAID for word in GREETINGS]
    often = 1 / np.arange(1, forms + 1)
    chosen = further(drawn, rng.permutation(every)[:forms].tolist())
    which = rng.choice(forms, count, p=often / often.sum())
    is_greeting = rng.random(count) < share
    known = evenly(drawn, count, rng)
    items = [
        chosen[which[n]] if is_greeting[n] else another(drawn.items[known[n]], rng) for n in range(count)
    ]
    return [item.model_copy(update={"user": f"user-{n}"}) for n, item in enumerate(items)]


KINDS: dict[str, Callable[[Scene, int, Rng], Stream]] = {
    "even": evenly, "Zipf": zipf, "Zipf, reordered slowly": reordered, "bursts": bursts,
    "Zipf, reordered slowly, half of the windows bursts": turned_bursts,
}  # fmt: skip

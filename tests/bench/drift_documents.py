"""How soon the monitor says that documents lack something, and how often it says so wrongly.

Documents are public SOPs, searched by a real index; questions are their headings, which it does not hold (see
``passages``). From a draw some documents are left out: one publisher's, which is another subject, or one in
five, which leaves others of the same subject. A question about them has no passage that fits.

    make bench NAME=drift_documents ARGS="--draws 5"
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from alarms import DRIFT, alarms_in, say, summed, told
from corpus import require_data
from passages import headings
from questions import KINDS, START, WINDOW, Rng
from report import write_report
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_monitor.detectors import WEIGHTS, Opening
from tunewheel_monitor.detectors.documents import Documents

from retrieval import built, document

SHARES = (0.0, 0.05, 0.1, 0.2, 0.5)
CALM = 2_000
PROMPTS = 600
TOP_K = 4
DETECTOR = Documents()


@dataclass
class Library:
    """Some of the documents, and what the index finds for questions about all of them."""

    items: list[InferenceScored]
    intents: Any
    """By item: which document answers it."""
    known: Any
    """Which ``items`` the documents answer."""
    lacking: Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--windows", type=int, default=10_000, help="of questions that the documents answer")
    given = parser.parse_args()
    require_data()
    embedder, found = StaticEmbedder(), dict[str, Any]()
    for left_out in ("a publisher", "one in five"):
        libraries = [library(left_out, embedder, np.random.default_rng((21, n))) for n in range(given.draws)]
        found[f"{left_out} left out"] = power(libraries) | {
            "known": {
                kind: false_alarms(libraries, kind, given.windows // (2 * len(KINDS))) for kind in KINDS
            },
            "lower than": round(float(np.mean([separation(one) for one in libraries])), 3),
        }
        say(left_out, found[f"{left_out} left out"])
    write_report("drift_documents", packages=("numpy", "tokenizers"), contenders=found, ratios={})


def library(left_out: str, embedder: StaticEmbedder, rng: Rng) -> Library:
    everything = headings(10**6)
    files = sorted({text.name.partition("#")[0] for text in everything.texts})
    publishers = sorted({name.partition("/")[0] for name in files})
    if left_out == "a publisher":
        publisher = rng.choice(publishers)
        gone = {name for name in files if name.startswith(f"{publisher}/")}
    else:
        gone = set(rng.choice(files, len(files) // 5, replace=False).tolist())
    index = built(
        [document(one) for one in everything.texts if one.name.partition("#")[0] not in gone], embedder
    )
    asked = [(question, next(iter(right)).partition("#")[0]) for question, right in everything.asked]
    units = embedder.units([question for question, _ in asked])
    items: list[InferenceScored] = []
    for n, ((question, _), unit) in enumerate(zip(asked, units, strict=True)):
        hits = index.search(question, unit, TOP_K)
        items.append(
            InferenceScored.model_construct(
                project="desk", completion_id=f"c-{n}", scored=f"c-{n}", model_id="m",
                role=RouteRole.PRODUCTION, at=START, retrieval_sha256="0" * 64,
                similarity=max((hit.similarity or 0.0 for hit in hits), default=0.0),
            )
        )  # fmt: skip
    intents = np.array([name for _, name in asked])
    is_gone = np.isin(intents, sorted(gone))
    return Library(items, intents, np.where(~is_gone)[0], np.where(is_gone)[0])


def separation(drawn: Library) -> float:
    """Return how often a question without documents fits worse than one with them (area under the curve)."""
    known, lacking = (
        np.array([drawn.items[n].similarity for n in rows]) for rows in (drawn.known, drawn.lacking)
    )
    return float((lacking[:, None] < known[None, :]).mean())


def power(libraries: list[Library]) -> dict[str, Any]:
    """Return by share of questions without documents how many draws alarmed within ``PROMPTS``, and after how
    many prompts."""
    found: dict[str, Any] = {}
    for share in SHARES:
        first: list[dict[str, int]] = []
        for number, drawn in enumerate(libraries):
            rng = np.random.default_rng((22, number))
            calm = {DETECTOR.name: DETECTOR.open(Opening(drift=DRIFT, weights=WEIGHTS))}
            alarms_in((DETECTOR,), calm, [drawn.items[n] for n in rng.choice(drawn.known, CALM)])
            missing = rng.random(PROMPTS) < share
            rows = np.where(missing, rng.choice(drawn.lacking, PROMPTS), rng.choice(drawn.known, PROMPTS))
            first.append(alarms_in((DETECTOR,), copy.deepcopy(calm), [drawn.items[n] for n in rows]))
        found[f"{share:.0%}"] = told(first, (DETECTOR,))[DETECTOR.name]
    return found


def false_alarms(libraries: list[Library], kind: str, windows: int) -> dict[str, Any]:
    """Return the alarms in so many windows of known questions, asked as ``questions.KINDS`` says."""
    length, counts = -(-windows // len(libraries)), list[dict[str, int]]()
    for number, drawn in enumerate(libraries):
        rng = np.random.default_rng((23, list(KINDS).index(kind), number))
        rows, one = KINDS[kind](drawn, length * WINDOW, rng), dict[str, int]()  # type: ignore[arg-type]
        alarms_in((DETECTOR,), {DETECTOR.name: DETECTOR.open(Opening(drift=DRIFT, weights=WEIGHTS))},
                  [drawn.items[n] for n in rows], one)  # fmt: skip
        counts.append(one)
    return {"windows": length * len(libraries), "false alarms": summed(counts).get(DETECTOR.name, 0)}


if __name__ == "__main__":
    main()

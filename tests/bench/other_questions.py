"""Real questions as other datasets hold them: in templates, or in two languages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from questions import ENCODER, Questions, Rng
from tunewheel_embedding.static import StaticEmbedder

TEMPLATES = (
    "Question from the contact form: {} Sent by a customer of the bank.",
    "Ticket opened by phone. The caller asks: {}",
    "{} -- Please answer within one working day. Reference number follows.",
)
HELD_OUT = 0.25
"""Of the sentences of another language, as in banking77."""


def templated(questions: Questions, rng: Rng) -> Questions:
    """Return the questions, of which a third stand in one of three templates."""
    rows = np.where(rng.random(len(questions.texts)) < 1 / 3)[0]
    texts, vectors, sharp = list(questions.texts), questions.vectors.copy(), questions.encoded
    for row in rows:
        texts[row] = TEMPLATES[rng.integers(len(TEMPLATES))].format(texts[row])
    vectors[rows] = StaticEmbedder().embed([texts[row] for row in rows])
    if sharp is not None:
        sharp = sharp.copy()
        sharp[rows] = ENCODER.units([texts[row] for row in rows])
    return replace(questions, texts=texts, vectors=vectors, encoded=sharp)


def bilingual(questions: Questions, folder: Path, rng: Rng) -> Questions:
    """Return as many of banking77's questions as there are sentences in ``folder``, and those: tests of a
    home assistant in another language, whose file names are the intents."""
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.glob("[!_]*.yaml")}
    said = [
        (text, intent)
        for intent, file in sorted(read.items())
        for test in file["tests"]
        for text in ([test["sentences"]] if isinstance(test["sentences"], str) else test["sentences"])
    ]
    texts = [text for text, _ in said]
    kept = rng.permutation(np.where(~questions.hotels)[0])[: len(said)]
    kept = np.concatenate([kept, np.where(questions.hotels)[0]])
    sharp = questions.encoded
    if sharp is not None:
        sharp = np.concatenate([sharp[kept], ENCODER.units(texts)])
    return Questions(
        [questions.texts[row] for row in kept] + texts,
        np.concatenate([questions.vectors[kept], StaticEmbedder().embed(texts)]),
        np.concatenate([questions.intents[kept], [intent for _, intent in said]]),
        np.concatenate([questions.held_out[kept], rng.random(len(said)) < HELD_OUT]),
        np.concatenate([questions.hotels[kept], np.zeros(len(said), bool)]),
        sharp,
    )

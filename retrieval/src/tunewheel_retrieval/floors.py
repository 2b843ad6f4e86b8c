"""Measures how well passages fit a question, and how well they fit prompts that have nothing to do with them.

Ranks say which passage is best, not whether it is any good. ``fit_of`` says that; the bound above which a fit
counts is measured anew for each index, because a table of vectors finds all texts of one trade alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.formats.index import Floors
from tunewheel_contracts.formats.regression_items import general_items

from tunewheel_retrieval.words import Postings, WordSearch

QUANTILE = 0.9
"""The share of unrelated prompts that get no passage."""


def general_prompts() -> list[str]:
    """Return prompts about arithmetic, geography, grammar and the like, which are unrelated to a company's
    documents."""
    return [item.prompt for item in general_items()]


def fit_of(
    words: WordSearch, question: str, cosines: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Return how well each passage fits ``question``, (passages,): see ``Hit.fit``.

    Neither part is enough alone. A static table gives foreign questions cosines of .5, and rewordings share
    few words. Equal weights separated headings of SOPs and customers' questions from general prompts best.
    """
    shares = words.shares(question)
    return shares if cosines is None else shares + cosines


def floors_of(
    postings: Postings, vectors: npt.NDArray[np.floating[Any]], general: npt.NDArray[np.float32]
) -> Floors:
    """Return the bounds of an index.

    Args:
        vectors: of the passages, (passages, dimensions), unit length.
        general: of ``general_prompts``, (prompts, dimensions); zeros for one that the embedder refuses.
    """
    words, passages = WordSearch(postings), np.asarray(vectors, np.float32)
    prompts = general_prompts()
    by_words = _bound(float(words.shares(prompt).max(initial=0)) for prompt in prompts)
    return Floors(
        with_vector=_bound(
            float(fit_of(words, prompt, passages @ vector).max(initial=0))
            for prompt, vector in zip(prompts, general, strict=True)
        ),
        by_words=by_words,
    )


def _bound(best: Iterable[float]) -> float:
    return round(float(np.quantile(list(best), QUANTILE)), 4)

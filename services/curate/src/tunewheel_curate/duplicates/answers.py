"""Decides whether two answers say the same. Similar inputs are duplicates only if their answers say the same.

Two tickets may differ only in an error code and need different answers; dropping one would lose its answer.
And two people may give the same answer in slightly different words. So the free text of answers is compared
like inputs, by the Jaccard similarity of word pairs. Everything else must be equal, including the figures
(words with a digit), unless an answer repeats a figure from its own question.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.examples.answer_shape import AnswerShape, shape_of_answers
from tunewheel_curate.examples.free_text import free_texts, without_free_text
from tunewheel_curate.labels.conflicts import agreeing
from tunewheel_curate.similarity.near_index import shared_counts
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components
from tunewheel_curate.similarity.shingling import Integers, shingle_sets

_FIGURES = r"\w*\d\w*"


def answered_alike(
    records: pl.DataFrame, pairs: Sequence[SimilarPair], task: TaskSpec, *, threshold: float
) -> SimilarPairs:
    """Return those of ``pairs`` whose answers say the same, and further pairs that link equal answers.

    ``pairs`` are positions in ``records``, which has ``key``, ``label`` and ``output``. Two texts are nearly
    the same from the similarity ``threshold`` on. Among very many similar inputs, each is compared with only
    a few others, which may have other answers. So records with equal answers are linked too if ``pairs``
    connect them, directly or not.
    """
    agreed = agreeing(records, pairs)
    if not len(agreed):
        return agreed
    involved, place = np.unique(np.concatenate([agreed.first, agreed.second]), return_inverse=True)
    one, other = place[: len(agreed)], place[len(agreed) :]
    answers = _numbered(records["output"].gather(involved))
    same = answers[one] == answers[other]
    differ = np.flatnonzero(~same)
    if len(differ):
        rows = records.select("key", "output")[involved]
        same[differ] = _say_the_same(rows, one[differ], other[differ], task, threshold)
    linked = np.array(components(records.height, agreed), np.int64)[involved]
    return agreed.where(same).joined(_equal_answers(involved, linked, answers))


def _equal_answers(involved: Integers, linked: Integers, answers: Integers) -> SimilarPairs:
    """Pair each record with the first linked record that has the same answer."""
    both = np.stack([linked, answers], axis=1)
    first, group = np.unique(both, axis=0, return_index=True, return_inverse=True)[1:]
    leader = first[group.reshape(-1)]
    later = np.flatnonzero(leader != np.arange(len(involved)))
    return SimilarPairs(involved[leader[later]], involved[later], np.ones(len(later)))


def _say_the_same(
    rows: pl.DataFrame, one: Integers, other: Integers, task: TaskSpec, threshold: float
) -> npt.NDArray[np.bool_]:
    """Return for each pair (``one``, ``other``) of ``rows`` with unequal answers whether only words
    differ."""
    shape = shape_of_answers(task)
    bounded, texts = zip(*(_parts(answer, shape) for answer in rows["output"]), strict=True)
    keys = comparison_keys(pl.Series(texts, dtype=pl.String))
    figures = pl.DataFrame({"said": keys, "asked": rows["key"]}).select(
        pl.col("said").str.extract_all(_FIGURES).list.set_difference(
            pl.col("asked").str.extract_all(_FIGURES)
        ).list.sort().list.join(" ")
    )  # fmt: skip
    alike = np.ones(len(one), np.bool_)
    for part in (pl.Series(bounded, dtype=pl.String), figures.to_series()):
        numbers = _numbered(part)
        alike &= numbers[one] == numbers[other]
    chosen = np.flatnonzero(alike)
    sets = shingle_sets(keys)
    shared = shared_counts(sets, one[chosen], other[chosen]).astype(np.int64)
    union = sets.sizes[one[chosen]] + sets.sizes[other[chosen]] - shared
    alike[chosen] = shared >= threshold * union
    return alike


def _parts(answer: str, shape: AnswerShape | None) -> tuple[str, str]:
    """Return the parts of ``answer`` that are not free text, as JSON, and its free text."""
    if shape is None:
        return "", answer
    value = json.loads(answer)
    texts = [text for _, text in free_texts(value, shape)]
    return json.dumps(without_free_text(value, shape), sort_keys=True), "\n".join(texts)


def _numbered(texts: pl.Series) -> Integers:
    """Return a number for each of ``texts``; equal texts have the same number."""
    return texts.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()

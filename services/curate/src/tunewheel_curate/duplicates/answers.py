"""Decides whether two answers say the same. Similar inputs are duplicates only if their answers say the same.

Two tickets may differ only in an error code, and one other word in the answer may turn it into its opposite:
"we always cover", "we never cover". No measure of similarity tells such a word from a paraphrase, in any
language. So two answers say the same only if they are equal but for case, white space and the punctuation of
sentences. A figure (a word with a digit) that an answer takes over from its own question counts by its place
in the question: "error E01" and "error E02" are equal if each question names its own code in the same place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import polars as pl
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.cleaning.normalization import comparison_keys
from tunewheel_curate.examples.answer_shape import AnswerShape, shape_of_answers
from tunewheel_curate.examples.free_text import free_texts, without_free_text
from tunewheel_curate.labels.conflicts import agreeing
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components

_FIGURE = re.compile(r"\w*\d\w*")
_SENTENCE_MARKS = r"[.,;:!?…。、؟،]+(\s|$)"


def answered_alike(records: pl.DataFrame, pairs: Sequence[SimilarPair], task: TaskSpec) -> SimilarPairs:
    """Return pairs that link the records with equal answers among those that ``pairs`` connect.

    ``pairs`` are positions in ``records``, which has ``key``, ``label`` and ``output``. Among very many
    similar inputs, each is compared with only a few others, which may have other answers. So it is enough
    that ``pairs`` connect two records indirectly.
    """
    agreed = agreeing(records, pairs)
    if not len(agreed):
        return agreed
    involved = np.unique(np.concatenate([agreed.first, agreed.second]))
    said = _compared(records.select("key", "output")[involved], task)
    answers = said.rank("dense").cast(pl.Int64).to_numpy()
    linked = np.array(components(records.height, agreed), np.int64)[involved]
    both = np.stack([linked, answers], axis=1)
    first, group = np.unique(both, axis=0, return_index=True, return_inverse=True)[1:]
    leader = first[group.reshape(-1)]
    later = np.flatnonzero(leader != np.arange(len(involved)))
    return SimilarPairs(involved[leader[later]], involved[later], np.ones(len(later)))


def _compared(rows: pl.DataFrame, task: TaskSpec) -> pl.Series:
    """Return each answer of ``rows`` in the form by which answers are compared."""
    shape = shape_of_answers(task)
    bounded, texts = zip(*(_parts(answer, shape) for answer in rows["output"]), strict=True)
    said = comparison_keys(pl.Series(texts, dtype=pl.String)).str.replace_all(_SENTENCE_MARKS, "$1")
    taken_over = map(_without_taken_over, said, rows["key"])
    return pl.Series(
        [f"{part}\0{text}" for part, text in zip(bounded, taken_over, strict=True)], dtype=pl.String
    )


def _without_taken_over(said: str, asked: str) -> str:
    """Return ``said`` with each figure that ``asked`` has too replaced by its place there."""
    places = {figure: place for place, figure in enumerate(dict.fromkeys(_FIGURE.findall(asked)))}
    return _FIGURE.sub(lambda found: f"\0{places.get(found[0], found[0])}\0", said) if places else said


def _parts(answer: str, shape: AnswerShape | None) -> tuple[str, str]:
    """Return the parts of ``answer`` that are not free text, as JSON, and its free text."""
    if shape is None:
        return "", answer
    value = json.loads(answer)
    texts = [text for _, text in free_texts(value, shape)]
    return json.dumps(without_free_text(value, shape), sort_keys=True), "\n".join(texts)

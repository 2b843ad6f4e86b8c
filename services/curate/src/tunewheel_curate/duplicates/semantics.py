"""Finds inputs that say the same in other words, by static embeddings.

Sentence vectors are rounded to whole numbers before they are compared, so that every processor finds the same
pairs. All pairs are compared: the work grows with the square of the inputs. Averages of word vectors see
topics rather than statements: "cancel my order" and "do not cancel my order" look the same. So this stage is
off by default, and by default it only reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
from tunewheel_contracts.formats.data_quality import SemanticDuplicates
from tunewheel_contracts.formats.quality_report import SemanticReport
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_embedding.static import Projection, StaticEmbedder, Vectors

from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.duplicates.questions import drop_clusters
from tunewheel_curate.similarity.pairs import SimilarPairs, components
from tunewheel_curate.similarity.shingling import text_hashes
from tunewheel_curate.stage import Stage, keep_all

LEVELS = 4_096
"""Steps per unit to which a coordinate is rounded. Sums of 384 products of such numbers are exact in
float64."""
REFERENCE_TEXTS = 4_096
"""How many texts the common component is computed from: those with the smallest hashes."""
_BLOCK_ROWS = 1_024
_BATCH_TEXTS = 8_192


def settle_semantic_duplicates(
    records: pl.DataFrame, related: SimilarPairs, policy: SemanticDuplicates, task: TaskSpec
) -> Stage:
    """Find records (columns ``key``, ``label``, ``output``) with the same meaning. Drop all but the best one
    if ``policy.action`` is ``drop``. The pairs found are added to the ``related`` ones.

    Pairs whose answers differ are reported and never dropped. Reason: ``semantic_duplicate``.
    """
    pairs = semantic_pairs(records["key"].to_list(), threshold=policy.threshold)
    roots = np.array(components(records.height, pairs), np.int64)
    sizes = np.bincount(roots, minlength=records.height)
    stage = keep_all("semantic_duplicates", records)
    if policy.action == "drop":
        repeated = answered_alike(records, pairs, task)
        stage = drop_clusters("semantic_duplicates", records, repeated, reason="semantic_duplicate")
    report = SemanticReport(
        threshold=policy.threshold,
        pairs=len(pairs),
        clusters=int((sizes > 1).sum()),
        examples=int(sizes[sizes > 1].sum()),
        dropped=stage.dropped.height,
    )
    return replace(stage, pairs=related.joined(pairs), semantic=report)


def semantic_pairs(texts: Sequence[str], *, threshold: float) -> SimilarPairs:
    """Return the pairs of ``texts`` whose vectors' cosine is at least ``threshold``, whatever their order."""
    vectors = whole_vectors(texts)
    lengths = np.sqrt((vectors * vectors).sum(axis=1))
    first: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    second: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    similarity: list[Vectors] = [np.empty(0)]
    for start in range(0, len(texts), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(texts))
        scale = np.maximum(np.outer(lengths[start:stop], lengths[start:]), 1.0)
        cosine = (vectors[start:stop] @ vectors[start:].T) / scale
        row, column = np.nonzero(cosine >= threshold)
        later = column > row
        first.append(row[later] + start)
        second.append(column[later] + start)
        similarity.append(cosine[row[later], column[later]])
    return SimilarPairs(np.concatenate(first), np.concatenate(second), np.concatenate(similarity))


def whole_vectors(texts: Sequence[str]) -> Vectors:
    """Return one vector of whole numbers per text, about ``LEVELS`` long: (texts, 384)."""
    embedder = StaticEmbedder()
    if not texts:
        return np.zeros((0, 1))
    parts = [embedder.embed(texts[i : i + _BATCH_TEXTS]) for i in range(0, len(texts), _BATCH_TEXTS)]
    vectors = np.concatenate(parts)
    chosen = np.argsort(text_hashes(texts), kind="stable")[:REFERENCE_TEXTS]
    return np.rint(Projection.fit(vectors[chosen]).apply(vectors) * LEVELS)

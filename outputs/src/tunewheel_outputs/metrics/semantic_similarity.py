from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.texts import spoken

if TYPE_CHECKING:
    from tunewheel_embedding.static import StaticEmbedder


@cache
def _embedder() -> StaticEmbedder:
    from tunewheel_embedding.static import StaticEmbedder

    return StaticEmbedder()


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    def score(row: Row) -> float:
        ours, theirs = (
            "\n".join(spoken(text)).encode("utf-8", "replace").decode() for text in (row.output, row.expected)
        )
        if ours == theirs:
            return 1.0
        one, other = _embedder().units([ours, theirs])
        return min(1.0, max(0.0, float(one @ other)))

    return score


METRIC = Metric(
    name="semantic_similarity",
    about="Cosine of the answer's and the expert's answer's vectors (static embeddings), 0 if negative: how "
    "far both are about the same, in whatever words.",
    unit="fraction",
    scorer=_scorer,
)

"""Decides which passages of an index may appear in training prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_redaction.redaction import Redactor
from tunewheel_retrieval.context import as_data
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import Index

from tunewheel_curate.documents.examples import not_held_out
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.evaluation.contamination import given_away
from tunewheel_curate.evaluation.leakage import held_out_questions
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.examples.templates import holds_control_token
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY

_COLUMNS = ("example_id", "messages")


def allowed_passages(
    index: Index,
    records: Collection[str],
    *,
    spec: ProjectSpec,
    tokens: Tokens,
    holdout: pl.DataFrame,
    memory: HoldoutMemory,
    benchmarks: Sequence[BenchmarkTexts],
) -> frozenset[str]:
    """Return the ids of the passages that may appear in training prompts.

    A passage is left out for one of these reasons:

    - Its record is not in ``records``: it was withdrawn or erased, or is newer than the build's records.
    - It holds a question that is held out (``holdout``), or was in an earlier version (``memory``).
    - It overlaps a benchmark.
    - It holds a control token of the base model's chat template.
    - The spec's policy finds personal data in it: the index may have been built with an earlier policy.
    """
    own = [passage for passage in index.rows if passage.record_id in records]
    own = _without_personal_data(own, spec)
    texts = [as_data(passage.searched) for passage in own]
    said = pl.DataFrame(
        {
            "example_id": [passage.passage_id for passage in own],
            "messages": [[{"role": "assistant", "content": text}] for text in texts],
        },
        schema={name: EXAMPLE_SCHEMA[name] for name in _COLUMNS},
    )
    if tokens.tokenizer is not None:
        said = said.filter(~holds_control_token(pl.Series(texts, dtype=pl.String), tokens.tokenizer))
    said = not_held_out(said, memory).kept
    if said.is_empty():
        return frozenset()
    judged_by = [*benchmarks, held_out_questions(holdout)]
    words = spec.dataset.contamination.words
    away = given_away(said, judged_by, words=words, threshold=LEAK_SIMILARITY)
    return frozenset(name for at, name in enumerate(said["example_id"]) if at not in away)


def _without_personal_data(passages: Sequence[Passage], spec: ProjectSpec) -> list[Passage]:
    policy = spec.dataset.pii
    if policy.action == "keep":
        return list(passages)
    texts = pl.Series([passage.searched for passage in passages], dtype=pl.String)
    is_found = Redactor(policy, project=spec.project).holds_any(texts)
    return [passage for passage, found in zip(passages, is_found, strict=True) if not found]

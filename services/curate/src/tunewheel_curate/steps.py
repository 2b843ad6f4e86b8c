"""The list of curation steps, in the order in which they run.

Rows of three kinds go through it: records with answers, drafts made from documents, and answers that were
only rated down. ``pipeline.py`` drafts the rows before the list and makes examples of them after it.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_curate.cleaning.languages import keep_languages
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.cleaning.tickets import clean_records
from tunewheel_curate.documents.examples import drop_repetition
from tunewheel_curate.duplicates.questions import (
    drop_exact_duplicates,
    drop_near_duplicates,
    find_near_pairs,
    settle_near_conflicts,
)
from tunewheel_curate.duplicates.semantics import settle_semantic_duplicates
from tunewheel_curate.examples.answer_shape import words_of
from tunewheel_curate.examples.formatting import drop_long, with_key
from tunewheel_curate.examples.output_validation import check_rules, normalize, validate_outputs
from tunewheel_curate.examples.templates import check_conversations
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY, join_conversations
from tunewheel_curate.labels.conflicts import drop_conflicts
from tunewheel_curate.labels.review import answer_conflicting, conflicting, off_schema
from tunewheel_curate.stage import Stage
from tunewheel_curate.step import Context, Kind, Step


def _redaction(context: Context) -> dict[str, object]:
    policy, schema = context.spec.dataset.pii, context.spec.task.output_schema
    if context.kind is Kind.DOCUMENT:
        # Sections were redacted before. A teacher may have written personal data that was not recognised
        # there. A pipeline for names would take placeholders for names.
        policy, schema = policy.model_copy(update={"named_entities": None}), None
    return {"policy": policy, "secret": context.pinned.secret, "own_words": words_of(schema)}


def _validate(records: pl.DataFrame, task: TaskSpec, cleaning: CleaningSpec) -> Stage:
    stage = validate_outputs(records, task, cleaning)
    return replace(stage, review=(off_schema(records, stage, task),))


def _settle_conflicts(records: pl.DataFrame, task: TaskSpec) -> Stage:
    stage = drop_conflicts(records)
    return replace(stage, review=(conflicting(records, stage), answer_conflicting(stage.kept, task)))


TRUST = "trust attributes"
BEST = f"{TRUST} output occurred_at published_at"
"""The columns by which the best of several records is chosen."""
LISTED = f"kind source_id title input output validated_by validated_at {TRUST} occurred_at published_at"
"""The columns of the review list."""
TALK = "title input history output"
ASKED = (Kind.ANSWER, Kind.NEGATIVE)
"""The kinds that people wrote."""

ROW_STEPS = (
    Step(
        "normalization", normalize, "title input output rejected_output",
        writes="title input output rejected_output", kinds=ASKED,
        options=lambda c: {"task": c.spec.task, "min_characters": c.spec.dataset.min_characters},
    ),
    Step(
        "cleaning", clean_records, f"kind {TALK}", writes=f"{TALK} flags", kinds=ASKED,
        options=lambda c: {
            "policy": c.spec.dataset.cleaning, "free_text": c.spec.task.output_schema is None,
            "min_characters": c.spec.dataset.min_characters,
        },
    ),
    Step(
        "language", keep_languages, "input", kinds=ASKED,
        options=lambda c: {"languages": c.spec.dataset.languages} if c.spec.dataset.languages else None,
    ),
    Step(  # a text must have its final form before personal data can be found in it
        "redaction", redact_records, f"project group {TALK} rejected_output",
        writes=f"{TALK} rejected_output", kinds=tuple(Kind), options=_redaction,
    ),
    Step(
        "output_validation", _validate, LISTED, writes="label",
        options=lambda c: {"task": c.spec.task, "cleaning": c.spec.dataset.cleaning},
    ),
    Step(
        "output_rules", check_rules, TALK,
        options=lambda c: {"rules": c.spec.task.output_rules} if c.spec.task.output_rules else None,
    ),
    Step(
        "length", drop_long, TALK, kinds=tuple(Kind),
        options=lambda c: {
            "system_prompt": c.system_prompt, "max_tokens": c.spec.dataset.max_tokens,
            "tokens": c.pinned.tokens,
        },
    ),
    Step(
        "template", check_conversations, TALK, kinds=tuple(Kind),
        options=lambda c: {"tokenizer": c.pinned.tokens.tokenizer, "system_prompt": c.system_prompt}
        if c.pinned.tokens.tokenizer is not None else None,
    ),
    Step("key", with_key, "title input history", writes="key", kinds=ASKED),
)  # fmt: skip
"""Steps that judge each row by itself."""

CORPUS_STEPS = (
    Step(
        "conflicts", _settle_conflicts, f"key label {LISTED}", held=True,
        options=lambda c: {"task": c.spec.task},
    ),
    Step("exact_duplicates", drop_exact_duplicates, f"key {BEST}"),
    Step(
        "near_pairs", find_near_pairs, "key",
        options=lambda c: {
            "minimum": min(c.spec.dataset.near_duplicate_threshold, LEAK_SIMILARITY), "earlier": c.earlier,
        },
    ),
    Step(
        "near_conflicts", settle_near_conflicts, f"label {LISTED}", paired=True,
        options=lambda c: {"task": c.spec.task, "threshold": c.spec.dataset.near_duplicate_threshold},
    ),
    Step(
        "near_duplicates", drop_near_duplicates, f"key label {BEST}", paired=True,
        options=lambda c: {"task": c.spec.task, "threshold": c.spec.dataset.near_duplicate_threshold},
    ),
    Step(
        "semantic_duplicates", settle_semantic_duplicates, f"key label {BEST}", paired=True,
        options=lambda c: {"policy": c.spec.dataset.semantic_duplicates, "task": c.spec.task}
        if c.spec.dataset.semantic_duplicates.enabled else None,
    ),
    Step("conversations", join_conversations, "", paired=True, options=lambda c: {"received": c.received}),
    Step("repetition", drop_repetition, "input output format", kinds=(Kind.DOCUMENT,)),
)  # fmt: skip
"""Steps that compare rows with each other."""

STEPS = (*ROW_STEPS, *CORPUS_STEPS)

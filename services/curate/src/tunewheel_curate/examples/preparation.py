"""The stages that the questions and answers of all kinds of examples go through, in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.cleaning.languages import keep_languages
from tunewheel_curate.cleaning.normalization import normalize_records
from tunewheel_curate.cleaning.redaction import ANSWERS
from tunewheel_curate.cleaning.tickets import clean_records
from tunewheel_curate.examples.answer_shape import words_of
from tunewheel_curate.examples.formatting import drop_long, redact_conversations
from tunewheel_curate.examples.output_validation import spelt_answers
from tunewheel_curate.examples.templates import check_conversations
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.stage import Stage

Step = Callable[[pl.DataFrame], Stage]
"""Runs one stage on the records that the previous stage kept."""


def cleaning(spec: ProjectSpec, *, secret: str) -> list[Step]:
    """Return the stages from normalisation to redaction; ``secret`` keys the pseudonyms.

    Redaction comes last: a text must have its final form before personal data can be found in it.
    """
    dataset, own_words = spec.dataset, words_of(spec.task.output_schema)
    steps: list[Step] = [partial(_normalize, spec=spec), partial(clean_records, spec=spec)]
    if dataset.languages:
        steps.append(partial(keep_languages, languages=dataset.languages))
    redact = partial(redact_conversations, policy=dataset.pii, secret=secret, own_words=own_words)
    return [*steps, redact]


def _normalize(records: pl.DataFrame, spec: ProjectSpec) -> Stage:
    spelt = [spelt_answers(records[name], spec.task) for name in ANSWERS]
    return normalize_records(records.with_columns(spelt), min_characters=spec.dataset.min_characters)


def fitting(spec: ProjectSpec, tokens: Tokens) -> list[Step]:
    """Return the stages that drop conversations which are too long or which the chat template damages."""
    prompt, limit = spec.task.system_prompt, spec.dataset.max_tokens
    steps: list[Step] = [partial(drop_long, system_prompt=prompt, max_tokens=limit, tokens=tokens)]
    if tokens.tokenizer is not None:
        steps.append(partial(check_conversations, tokenizer=tokens.tokenizer, system_prompt=prompt))
    return steps

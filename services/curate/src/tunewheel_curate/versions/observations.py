"""Prepares the frame that the suite checks: one row per example, with violations as numbers."""

from __future__ import annotations

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.labels import label_text
from tunewheel_outputs.rules import rule_complaints
from tunewheel_outputs.schema import SchemaCheck
from tunewheel_redaction.redaction import Redactor

from tunewheel_curate.examples.answer_shape import words_of
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.splitting import Split

NO_LABEL = ""
"""The label in this frame of rows that are no answers, such as passages of documents."""
LOOKED_AT = 10_000
"""How many examples are searched for personal data. The search costs more than all other checks."""


def observed(split: Split, spec: ProjectSpec, tokens: Tokens) -> pl.DataFrame:
    """Return the examples of both sides, without general data, in the columns that the suite names."""
    both = pl.concat(
        [
            split.train.with_columns(pl.lit("train").alias("split")),
            split.holdout.with_columns(pl.lit("holdout").alias("split")),
        ]
    )
    both = both.filter(pl.col("format") != ExampleFormat.REPLAY.value)
    messages = both["messages"].to_list()
    answers = both["format"] == ExampleFormat.ANSWER.value
    asked = pl.Series(
        "user", ["\n\n".join(turn["content"] for turn in turns[1:-1]) for turns in messages], dtype=pl.String
    )
    said = pl.Series("assistant", [turns[-1]["content"] for turns in messages], dtype=pl.String)
    sizes = tokens.conversation_sizes([[turn["content"] for turn in turns] for turns in messages])
    return both.select(
        "example_id",
        asked,
        # Questions of answers must be distinct; the same question about two documents is allowed.
        pl.when(pl.lit(answers)).then(pl.lit(asked)).otherwise("example_id").alias("question"),
        said,
        _schema_violations(said, answers, spec).alias("schema_violations"),
        _rule_violations(asked, said, answers, spec).alias("rule_violations"),
        _personal_data(both["example_id"], asked, said, both["group"], spec).alias("personal_data"),
        pl.Series("tokens", sizes, dtype=pl.Int64),
        # Only answers carry a label, so the share of unlabelled rows is computed over answers.
        pl.when(pl.lit(answers)).then("label").otherwise(pl.lit(NO_LABEL)).alias("label"),
        "group",
        "split",
        pl.col("split").n_unique().over("group").cast(pl.Int64).alias("splits_of_group"),
    )


def allowed_labels(spec: ProjectSpec) -> list[str]:
    """Return the labels that the schema lists, and ``NO_LABEL``; empty if the schema lists none."""
    schema, field = spec.task.output_schema, spec.task.label_field
    if schema is None or field is None:
        return []
    known = schema["properties"][field]
    values = known.get("enum", []) if isinstance(known, dict) else []
    return [*(label_text(value) for value in values if value is not None), NO_LABEL] if values else []


def _schema_violations(said: pl.Series, answers: pl.Series, spec: ProjectSpec) -> pl.Series:
    if spec.task.output_schema is None:
        return pl.repeat(0, len(said), dtype=pl.Int64, eager=True)
    # Great Expectations' own JSON Schema expectation checks the schema again for every row: 4 ms each.
    schema = SchemaCheck(spec.task.output_schema)
    counts = [schema.errors(text) if check else 0 for text, check in zip(said, answers, strict=True)]
    return pl.Series(counts, dtype=pl.Int64)


def _rule_violations(asked: pl.Series, said: pl.Series, answers: pl.Series, spec: ProjectSpec) -> pl.Series:
    if not spec.task.output_rules:
        return pl.repeat(0, len(said), dtype=pl.Int64, eager=True)
    complaints = rule_complaints(spec.task.output_rules, said.to_list(), asked.to_list())
    broken = pl.Series([any(several) for several in zip(*complaints, strict=True)], dtype=pl.Boolean)
    return (broken & answers).cast(pl.Int64)


def _personal_data(
    names: pl.Series, asked: pl.Series, said: pl.Series, groups: pl.Series, spec: ProjectSpec
) -> pl.Series:
    """Return for each example whether a pattern still finds personal data. Placeholders do not count. Named
    entities are not searched: what a pipeline takes for a name depends on the text around it.

    Only the ``LOOKED_AT`` examples with the smallest ids are searched; ids are hashes, so this is a random
    sample. The others are null.
    """
    policy = spec.dataset.pii
    nothing = pl.repeat(None, len(said), dtype=pl.Int64, eager=True)
    if policy.action == "keep":
        return nothing
    looked_at = (names.rank("ordinal") <= LOOKED_AT).arg_true()
    placeholder = f"<(?:{'|'.join(policy.placeholders)})(?:_[0-9a-f]+)?>"
    asked, said = (texts.gather(looked_at).str.replace_all(placeholder, "<>") for texts in (asked, said))
    own_words = words_of(spec.task.output_schema)
    redactor = Redactor(policy.model_copy(update={"named_entities": None}), own_words=own_words)
    groups = groups.gather(looked_at)
    left = redactor.clean(asked, groups) != asked
    left |= redactor.clean_answers(said, groups) != said
    return nothing.scatter(looked_at, left.cast(pl.Int64))

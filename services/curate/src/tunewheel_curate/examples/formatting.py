"""Joins a record's question and history into the conversation that a model is trained on."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from tunewheel_contracts.identity import content_id

from tunewheel_curate.cleaning.normalization import Turn, comparison_keys, turns_of
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.stage import Stage, drop, keep_all


def conversation(title: str, text: str, history: str | None) -> list[Turn]:
    """Return the turns before the answer. The title is part of the first turn. Consecutive turns of one role
    are merged. The last turn is the user's."""
    if not history:  # as in most records
        return [{"role": "user", "content": f"{title}\n\n{text}" if title else text}]
    turns = [*turns_of(history), {"role": "user", "content": text}]
    if title:
        turns[0] = turns[0] | {"content": f"{title}\n\n{turns[0]['content']}"}
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": f"{merged[-1]['content']}\n\n{turn['content']}"}
        else:
            merged.append(dict(turn))
    return merged


def asked_text(title: str, text: str, history: str | None) -> str:
    """Return all turns before the answer as one text. Two questions are the same if these texts are."""
    return "\n\n".join(turn["content"] for turn in conversation(title, text, history))


def with_key(records: pl.DataFrame) -> Stage:
    """Add the column ``key``: the normalised question, by which records are compared."""
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    keys = comparison_keys(pl.Series("key", asked, dtype=pl.String))
    return keep_all("key", records.with_columns(keys))


MESSAGE = pl.Struct({"role": pl.String(), "content": pl.String()})
_MESSAGES = pl.List(MESSAGE)
EXAMPLE_SCHEMA: dict[str, pl.DataType] = {
    "example_id": pl.String(),
    "messages": _MESSAGES,
    "label": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "record_ids": pl.List(pl.String()),
    "format": pl.String(),
}
"""The columns of a split, as ``ChatExample`` names them."""


def drop_long(records: pl.DataFrame, *, system_prompt: str, max_tokens: int, tokens: Tokens) -> Stage:
    """Drop records whose conversation would exceed ``max_tokens``. Reason: ``too_long``."""
    spoken = [
        [system_prompt, *(turn["content"] for turn in conversation(title, text, history)), output]
        for title, text, history, output in records.select("title", "input", "history", "output").iter_rows()
    ]
    too_long = pl.lit(pl.Series(tokens.conversation_sizes(spoken), dtype=pl.Int64)) > max_tokens
    return drop("length", records, pl.when(too_long).then(pl.lit("too_long")))


def with_name(rows: pl.DataFrame, *, system_prompt: str, noun: str) -> Stage:
    """Add ``example_id``, ``noun`` and 20 hex digits that follow from the conversation with the answer."""
    ids = [content_id(noun, talk) for talk in _talks(rows, system_prompt)]
    return keep_all("name", rows.with_columns(pl.Series("example_id", ids, dtype=pl.String)))


def with_messages(rows: pl.DataFrame, *, system_prompt: str) -> Stage:
    """Add ``messages``, the conversation with the answer."""
    is_thread = pl.col("history").is_not_null()
    threads = rows.filter(is_thread)
    parts = [
        rows.filter(~is_thread).with_columns(_single_turns(system_prompt).cast(_MESSAGES).alias("messages")),
        threads.with_columns(pl.Series("messages", _talks(threads, system_prompt), dtype=_MESSAGES)),
    ]
    return keep_all("messages", pl.concat(parts))


def examples_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the examples (``EXAMPLE_SCHEMA``) that ``rows`` make, sorted by ``example_id``. An example names
    its record, or the document that it was drafted from."""
    made_of = pl.coalesce("document", "record_id")
    return (
        rows.with_columns(pl.concat_list(made_of).alias("record_ids"))
        .select(*EXAMPLE_SCHEMA)
        .sort("example_id")
    )


def _talks(records: pl.DataFrame, system_prompt: str) -> Iterator[list[Turn]]:
    for title, text, history, output in records.select("title", "input", "history", "output").iter_rows():
        yield [
            {"role": "system", "content": system_prompt},
            *conversation(title, text, history),
            {"role": "assistant", "content": output},
        ]


def _single_turns(system_prompt: str) -> pl.Expr:
    """Say in columns what ``_talks`` says of records without a history: most of them."""
    title, text = pl.col("title"), pl.col("input")
    asked = pl.when(title == "").then(text).otherwise(pl.concat_str(title, pl.lit("\n\n"), text))
    turns = {"system": pl.lit(system_prompt), "user": asked, "assistant": pl.col("output")}
    return pl.concat_list(
        pl.struct(pl.lit(role).alias("role"), said.alias("content")) for role, said in turns.items()
    )

"""Records as the conversations that a model is trained on."""

from __future__ import annotations

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.identity import content_id

from tunewheel_curate.examples.conversations import conversation
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.stage import Stage, drop

MESSAGE = pl.Struct({"role": pl.String(), "content": pl.String()})
EXAMPLE_SCHEMA: dict[str, pl.DataType] = {
    "example_id": pl.String(),
    "messages": pl.List(MESSAGE),
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


def format_examples(records: pl.DataFrame, *, system_prompt: str) -> pl.DataFrame:
    """Return one chat example per record, sorted by ``example_id``, which follows from the messages."""
    rows = [
        _example(record, system_prompt)
        for record in records.select(
            "record_id", "title", "input", "history", "output", "label", "group", "trust"
        ).iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=EXAMPLE_SCHEMA).sort("example_id")


def _example(record: dict[str, str], system_prompt: str) -> dict[str, object]:
    messages = [
        {"role": "system", "content": system_prompt},
        *conversation(record["title"], record["input"], record["history"]),
        {"role": "assistant", "content": record["output"]},
    ]
    return {
        "example_id": content_id("ex", messages),
        "messages": messages,
        "label": record["label"],
        "group": record["group"],
        "trust": record["trust"],
        "record_ids": [record["record_id"]],
        "format": ExampleFormat.ANSWER.value,
    }

"""Joins a record's question and history into the conversation that a model is trained on, and redacts them
together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.identity import canonical_json, content_id

from tunewheel_curate.cleaning.normalization import Turn, turns_of
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.stage import Stage, drop


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


def redact_conversations(
    records: pl.DataFrame, policy: PiiPolicy, *, secret: str = "", own_words: Collection[str] = ()
) -> Stage:
    """Redact records together with their histories; see ``redact_records``.

    Each turn is redacted as a record of the same group, so the same value gets the same stand-in within a
    conversation. If the policy is ``reject``, personal data in any turn drops the whole record.
    """
    threads = records.filter(pl.col("history").is_not_null())
    if threads.is_empty():
        return redact_records(records, policy, secret=secret, own_words=own_words)
    both = pl.concat([records, _as_records(threads)])
    stage = redact_records(both, policy, secret=secret, own_words=own_words)
    is_turn = pl.col("record_id").str.contains(_MARK, literal=True)
    kept, turns = stage.kept.filter(~is_turn), stage.kept.filter(is_turn)
    dropped = stage.dropped.with_columns(pl.col("record_id").str.split(_MARK).list.first())
    dropped = dropped.unique("record_id", keep="first", maintain_order=True)
    kept = _with_turns(kept.join(dropped.select("record_id"), on="record_id", how="anti"), turns)
    return Stage(stage.name, kept, dropped, stage.counts)


_MARK = "\n"
"""Between a record's id and the number of its turn; ids hold no such character."""


def _as_records(threads: pl.DataFrame) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for record in threads.iter_rows(named=True):
        for number, turn in enumerate(turns_of(record["history"])):
            own = {
                "record_id": f"{record['record_id']}{_MARK}{number}",
                "title": "",
                "input": turn["content"],
            }
            rows.append(record | own | {"output": None, "rejected_output": None, "history": turn["role"]})
    return pl.DataFrame(rows, schema=threads.schema)


def _with_turns(kept: pl.DataFrame, turns: pl.DataFrame) -> pl.DataFrame:
    by_record: dict[str, list[tuple[int, Turn]]] = {}
    for name, role, content in turns.select("record_id", "history", "input").iter_rows():
        record_id, _, number = name.partition(_MARK)
        by_record.setdefault(record_id, []).append((int(number), {"role": role, "content": content}))
    histories = [_joined(by_record.get(record_id, ())) for record_id in kept["record_id"]]
    return kept.with_columns(pl.Series("history", histories, dtype=pl.String))


def _joined(numbered: Iterable[tuple[int, Turn]]) -> str | None:
    turns = [turn for _, turn in sorted(numbered, key=lambda item: item[0])]
    return canonical_json(turns).decode() if turns else None


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


def format_examples(records: pl.DataFrame, *, system_prompt: str) -> pl.DataFrame:
    """Return one chat example per record, sorted by ``example_id``, which follows from the messages."""
    is_thread = pl.col("history").is_not_null()
    threads, plain = records.filter(is_thread), records.filter(~is_thread)
    parts = [
        _examples(plain, _single_turns(system_prompt), system_prompt),
        _examples(threads, pl.Series(_talks(threads, system_prompt), dtype=_MESSAGES), system_prompt),
    ]
    return pl.concat(parts).sort("example_id")


def _examples(records: pl.DataFrame, messages: pl.Expr | pl.Series, system_prompt: str) -> pl.DataFrame:
    ids = [content_id("ex", talk) for talk in _talks(records, system_prompt)]
    return records.select(
        pl.Series("example_id", ids, dtype=pl.String),
        messages.cast(_MESSAGES).alias("messages"),
        "label",
        "group",
        "trust",
        pl.concat_list("record_id").alias("record_ids"),
        pl.lit(ExampleFormat.ANSWER.value).alias("format"),
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

"""Reads a dataset version's Parquet and encodes it as token ids, with a mask on the assistant's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_train.errors import RunFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_OPTIONAL = frozenset({"group", "record_ids", "format"})


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation. ``mask`` is as long as ``input_ids`` and 1 on the tokens to learn."""

    example_id: str
    input_ids: tuple[int, ...]
    mask: tuple[int, ...]
    group: str = ""
    record_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Refused:
    """An example that is not trained on. ``field`` names the part of the spec to change."""

    example_id: str
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Token counts over all kept examples. ``assistant`` counts the tokens that enter the loss."""

    examples: int
    tokens: int
    assistant: int
    longest: int


def read_examples(path: Path) -> list[dict[str, Any]]:
    """Return the rows of ``train.parquet``: ``example_id``, ``messages`` ({role, content}), and if the file
    has them ``group`` and ``record_ids``.

    Raises RunFailed when the file is no Parquet or lacks the first two columns.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(path)
        rows = frame.select("example_id", "messages", *_OPTIONAL.intersection(frame.columns)).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunFailed(
            field="dataset.train", reason=f"cannot be read ({error}); build the dataset again"
        ) from error
    if not rows:
        raise RunFailed(field="dataset.train", reason="holds no examples; build the dataset again")
    return rows


@dataclass(frozen=True, slots=True)
class Limits:
    """The base model's limits: at most ``context`` tokens, ids below ``vocabulary``. ``unknown`` is the id of
    the tokenizer's unknown token."""

    context: int | None = None
    vocabulary: int | None = None
    unknown: int | None = None


def encode_examples(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    limits: Limits = Limits(),
) -> tuple[list[Encoded], list[Refused]]:
    """Encode every row. Rows that are longer than ``max_tokens`` or the context, or that do not fit the
    template or the vocabulary, are refused.

    Raises RunFailed when nothing is left to train on, or the tokenizer belongs to another model.
    """
    from tunewheel_basemodel.chat import encode_row
    from tunewheel_basemodel.errors import InvalidChat

    if not tokenizer.chat_template:
        raise RunFailed(
            field="base_model", reason="has no chat template; name an instruct model, or add the template"
        )
    kept: list[Encoded] = []
    refused: list[Refused] = []
    for row in rows:
        example_id = str(row["example_id"])
        try:
            ids, mask = encode_row(tokenizer, row)
        except InvalidChat as error:
            refused.append(Refused(example_id, "dataset.train", str(error)))
            continue
        _demand_vocabulary(example_id, ids, limits)
        complaint = _complaint(ids, mask, max_tokens, limits) or _endless(ids, mask, tokenizer)
        if complaint:
            refused.append(Refused(example_id, *complaint))
        else:
            records = tuple(row.get("record_ids") or ())
            group = str(row.get("group") or example_id)
            kept.append(Encoded(example_id, tuple(ids), tuple(mask), group, records))
    if not kept:
        raise _nothing_left(refused, len(rows))
    return kept, refused


def _complaint(
    ids: Sequence[int], mask: Sequence[int], max_tokens: int, limits: Limits
) -> tuple[str, str] | None:
    """Return (field to change, why the example cannot be trained on); None: it can."""
    if len(ids) > max_tokens:
        return "train.max_tokens", f"has {len(ids)} tokens, more than train.max_tokens {max_tokens}"
    if limits.context is not None and len(ids) > limits.context:
        return "base_model", f"has {len(ids)} tokens, more than the base model's context of {limits.context}"
    if 1 not in mask[1:]:
        return "dataset.train", "has no assistant token to learn"
    learnt = (token for token, wanted in zip(ids, mask, strict=True) if wanted)
    if limits.unknown is not None and limits.unknown in learnt:
        return "base_model", "has an answer with characters that the base model's vocabulary lacks"
    return None


def _endless(ids: Sequence[int], mask: Sequence[int], tokenizer: Any) -> tuple[str, str] | None:
    """Return a complaint if an answer does not end with a special token. The model could not learn such an
    end, and would not stop."""
    last = max(at for at, wanted in enumerate(mask) if wanted)
    added = tokenizer.added_tokens_decoder.get(ids[last])
    if ids[last] == tokenizer.eos_token_id or (added is not None and added.special):
        return None
    return "base_model", (
        "has an answer that the chat template ends with no special token such as eos_token, so that its end "
        "could not be learnt"
    )


def _demand_vocabulary(example_id: str, ids: Sequence[int], limits: Limits) -> None:
    if limits.vocabulary is not None and max(ids, default=0) >= limits.vocabulary:
        raise RunFailed(
            field="base_model",
            reason=f"has {limits.vocabulary} embeddings, but its tokenizer writes token {max(ids)} "
            f"({example_id}); use the tokenizer the model was trained with",
        )


_MEND = {
    "train.max_tokens": "raise it, or shorten the examples",
    "base_model": "choose one that takes them, or change the examples or the chat template",
    "dataset.train": "build the dataset again",
}


def _nothing_left(refused: Sequence[Refused], rows: int) -> RunFailed:
    first = refused[0]
    return RunFailed(
        field=first.field,
        reason=f"leaves none of {rows} examples ({first.example_id} {first.reason}); {_MEND[first.field]}",
    )


def token_stats(examples: Sequence[Encoded]) -> TokenStats:
    """Count the tokens of ``examples``."""
    return TokenStats(
        examples=len(examples),
        tokens=sum(len(example) for example in examples),
        assistant=sum(sum(example.mask) for example in examples),
        longest=max((len(example) for example in examples), default=0),
    )

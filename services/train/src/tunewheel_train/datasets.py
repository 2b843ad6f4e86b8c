"""A dataset version's Parquet as token ids with the tokens that the assistant wrote marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_train.errors import RunFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation; ``mask`` is 1 on the tokens to learn and as long as ``input_ids``."""

    example_id: str
    input_ids: tuple[int, ...]
    mask: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Refused:
    example_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Counts of tokens over all kept examples; ``assistant`` are those that the loss is taken on."""

    examples: int
    tokens: int
    assistant: int
    longest: int


def read_examples(path: Path) -> list[dict[str, Any]]:
    """Rows ``example_id`` and ``messages`` ({role, content}) of ``train.parquet``.

    Raises RunFailed when the file is no Parquet or lacks these columns.
    """
    import polars as pl

    try:
        rows = pl.read_parquet(path, columns=["example_id", "messages"]).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunFailed(
            field="dataset.train", reason=f"cannot be read ({error}); build the dataset again"
        ) from error
    if not rows:
        raise RunFailed(field="dataset.train", reason="holds no examples; build the dataset again")
    return rows


def encode_examples(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[list[Encoded], list[Refused]]:
    """Encode every row; those longer than ``max_tokens`` tokens, or unfit for the template, are refused.

    Raises RunFailed when nothing is left to train on.
    """
    from tunewheel_basemodel.chat import encode_chat
    from tunewheel_basemodel.errors import InvalidChat

    kept: list[Encoded] = []
    refused: list[Refused] = []
    for row in rows:
        example_id = str(row["example_id"])
        try:
            ids, mask = encode_chat(tokenizer, row["messages"])
        except InvalidChat as error:
            refused.append(Refused(example_id, str(error)))
            continue
        if len(ids) > max_tokens:
            reason = f"has {len(ids)} tokens, more than train.max_tokens {max_tokens}"
            refused.append(Refused(example_id, reason))
        elif 1 not in mask[1:]:
            refused.append(Refused(example_id, "has no assistant token to learn"))
        else:
            kept.append(Encoded(example_id, tuple(ids), tuple(mask)))
    if not kept:
        raise RunFailed(
            field="train.max_tokens",
            reason=f"leaves none of {len(rows)} examples ({refused[0].example_id} {refused[0].reason}); "
            "raise it, or shorten the examples",
        )
    return kept, refused


def token_stats(examples: Sequence[Encoded]) -> TokenStats:
    """Count the tokens of ``examples``."""
    return TokenStats(
        examples=len(examples),
        tokens=sum(len(example) for example in examples),
        assistant=sum(sum(example.mask) for example in examples),
        longest=max((len(example) for example in examples), default=0),
    )

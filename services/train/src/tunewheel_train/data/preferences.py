"""Reads and encodes preference data: pairs of a chosen and a rejected answer, and single answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.methods import PreferenceMethod
from tunewheel_contracts.formats.recipe import PreferenceSpec

from tunewheel_train.data.datasets import Encoded, Limits, Refused, encode_examples
from tunewheel_train.errors import RunFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NEGATIVE_COLUMNS = ("negative_id", "prompt", "rejected", "record_id")
_COLUMNS = ("pair_id", "prompt", "chosen", "rejected", "record_id")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A prompt with a chosen and a rejected answer. ``prompt_ids`` followed by either answer is a
    conversation. One answer may be missing: an answer that was only rated down has no chosen one, an example
    no rejected one."""

    pair_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    record_ids: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(side) for side in self.sides())

    def sides(self) -> tuple[Encoded, ...]:
        """The chosen and the rejected conversation, without a missing one. The mask covers only the
        answer."""
        return tuple(self._side(answer) for answer in (self.chosen_ids, self.rejected_ids) if answer)

    def _side(self, answer: tuple[int, ...]) -> Encoded:
        mask = (0,) * len(self.prompt_ids) + (1,) * len(answer)
        return Encoded(self.pair_id, self.prompt_ids + answer, mask, record_ids=self.record_ids)

    def as_row(self) -> dict[str, list[int]]:
        """Return the row for TRL's collator for preferences."""
        return {
            "prompt_ids": list(self.prompt_ids),
            "chosen_ids": list(self.chosen_ids),
            "rejected_ids": list(self.rejected_ids),
        }


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Rows of ``preferences.parquet``. Raises RunFailed when the file is no Parquet or lacks columns."""
    rows = _rows(path, _COLUMNS, field="dataset.preferences")
    if not rows:
        raise no_pairs()
    return rows


def read_negatives(path: Path) -> list[dict[str, Any]]:
    """Return the rows of ``negatives.parquet`` for ``encode_answers``. Raises RunFailed like
    ``read_pairs``."""
    rows = _rows(path, _NEGATIVE_COLUMNS, field="dataset.negatives")
    return [{"pair_id": row.pop("negative_id"), **row} for row in rows]


def _rows(path: Path, columns: Sequence[str], *, field: str) -> list[dict[str, Any]]:
    import polars as pl

    try:
        return pl.read_parquet(path, columns=list(columns)).to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunFailed(field=field, reason=f"cannot be read ({error}); build the dataset again") from error


def no_pairs(*, negatives: bool = False) -> RunFailed:
    """Return the failure of a run whose method needs pairs while the dataset has none. ``negatives``: it has
    answers that were rated down."""
    if negatives:
        return RunFailed(
            field="train.preference.method",
            reason="needs pairs, but the dataset has only answers that were rated down; choose kto, "
            "which learns from these, or publish examples with rejected answers",
        )
    return RunFailed(
        field="train.preference",
        reason="asks for preference training, but the dataset has no pairs; publish examples with rejected "
        "answers, or remove it",
    )


def desirable(example: Encoded) -> EncodedPair:
    """Return the answer of ``example`` as a chosen answer without a rejected one."""
    start, end = _answer(example)
    return EncodedPair(
        pair_id=example.example_id,
        prompt_ids=example.input_ids[:start],
        chosen_ids=example.input_ids[start:end],
        rejected_ids=(),
        record_ids=example.record_ids,
    )


def class_weights(pairs: Sequence[EncodedPair], preference: PreferenceSpec) -> tuple[float, float]:
    """Return the weights of the loss of desirable (λ_D) and undesirable (λ_U) answers.

    Both kinds should have the same total weight: ``λ_D n_D / (λ_U n_U)`` between 1 and 4/3 (arXiv:2402.01306,
    equation 8; 1 here). The more frequent kind gets less weight. Giving the other kind more would have no
    effect, because gradients are clipped. A weight that ``preference`` sets is kept, and the other one
    follows from it.
    """
    n_desirable = sum(bool(pair.chosen_ids) for pair in pairs)
    n_undesirable = sum(bool(pair.rejected_ids) for pair in pairs)
    told, told_other = preference.desirable_weight, preference.undesirable_weight
    if told is not None:
        return told, told_other if told_other is not None else told * n_desirable / n_undesirable
    if told_other is not None:
        return told_other * n_undesirable / n_desirable, told_other
    return min(1.0, n_undesirable / n_desirable), min(1.0, n_desirable / n_undesirable)


def demand_enough(pairs: Sequence[EncodedPair], method: PreferenceMethod) -> None:
    """Raise RunFailed if ``method`` needs more pairs than there are."""
    if len(pairs) < method.traits.fewest_pairs:
        raise RunFailed(
            field="train.preference.method",
            reason=f"{method} compares each pair with another one, but the dataset has only one usable pair; "
            "publish more, or choose dpo",
        )


def encode_pairs(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    limits: Limits = Limits(),
) -> tuple[list[EncodedPair], list[Refused]]:
    """Encode every pair whose two conversations both fit. Raises RunFailed when none does."""
    kept, refused = encode_answers(rows, tokenizer, max_tokens=max_tokens, limits=limits)
    if not kept:
        raise none_left(refused, len(rows), "pairs")
    return kept, refused


def none_left(refused: Sequence[Refused], rows: int, what: str) -> RunFailed:
    """Return the failure of a run in which all ``rows`` pairs or answers (``what``) were refused."""
    first = refused[0]
    return RunFailed(
        field=first.field, reason=f"leaves none of {rows} {what} ({first.example_id} {first.reason})"
    )


def encode_answers(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    limits: Limits = Limits(),
) -> tuple[list[EncodedPair], list[Refused]]:
    """Encode every row whose conversations fit: both of a pair, or the only one of a row without
    ``chosen``."""
    kept: list[EncodedPair] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            pair = _encode(row, tokenizer, max_tokens, limits)
        except RunFailed as error:
            refused.append(Refused(str(row["pair_id"]), error.field, error.reason))
            continue
        if pair.chosen_ids == pair.rejected_ids:
            refused.append(Refused(pair.pair_id, "dataset.preferences", "has two equal answers"))
        else:
            kept.append(pair)
    return kept, refused


def _encode(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_tokens: int, limits: Limits
) -> EncodedPair:
    told = {side: row[side] for side in ("chosen", "rejected") if side in row}
    sides = {
        side: {
            "example_id": f"{row['pair_id']}/{side}",
            "messages": [*row["prompt"], {"role": "assistant", "content": answer}],
        }
        for side, answer in told.items()
    }
    encoded = {
        side: encode_examples([example], tokenizer, max_tokens=max_tokens, limits=limits)[0][0]
        for side, example in sides.items()
    }
    places = {side: _answer(example) for side, example in encoded.items()}
    answers = {side: encoded[side].input_ids[start:end] for side, (start, end) in places.items()}
    prompt = next(iter(told))
    return EncodedPair(
        pair_id=str(row["pair_id"]),
        prompt_ids=encoded[prompt].input_ids[: places[prompt][0]],
        chosen_ids=answers.get("chosen", ()),
        rejected_ids=answers["rejected"],
        record_ids=(str(row["record_id"]),),
    )


def _answer(example: Encoded) -> tuple[int, int]:
    """Return (start, end) of the assistant's last turn. Its earlier turns belong to the prompt."""
    end = len(example) - example.mask[::-1].index(1)
    start = end
    while start > 0 and example.mask[start - 1]:
        start -= 1
    return start, end

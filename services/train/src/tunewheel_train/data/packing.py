"""Packs several conversations into one row without padding, and stores their common beginning once.

    | prefix (P) | rest of example 0 | rest of example 1 | …

In a causal model the states of a token depend only on the tokens before it. The examples of a project begin
with the same system prompt, so the prompt's states are equal in all of them. They are computed once, and
every rest attends to them. Loss and gradients stay the same, with fewer tokens. All layers but attention work
token by token and need no change; attention is in ``model/attention.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tunewheel_train.data.datasets import Encoded

if TYPE_CHECKING:
    import torch

IGNORED = -100


@dataclass(frozen=True)
class PackedLayout:
    """Maps the rests' tokens in the row to a padded [examples, longest] block and back.

    ``to_block`` [examples · longest] has for each place in the block the token's index in the row (padding
    repeats an example's last token). ``from_block`` [tokens of all rests] has for each token its place in the
    flattened block.
    """

    prefix: int
    examples: int
    longest: int
    to_block: torch.Tensor
    from_block: torch.Tensor

    def to(self, device: Any, **options: Any) -> PackedLayout:
        return PackedLayout(**{f.name: _moved(getattr(self, f.name), device, options) for f in fields(self)})


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch: ``input_ids`` and ``position_ids`` [1, tokens]; ``predicting`` [targets] are the
    positions whose next token is in ``targets`` [targets]."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicting: torch.Tensor
    targets: torch.Tensor
    layout: PackedLayout
    tokens: int
    """The number of tokens of the examples, with the prefix counted once per example."""

    def to(self, device: Any, **options: Any) -> PackedBatch:
        return PackedBatch(**{f.name: _moved(getattr(self, f.name), device, options) for f in fields(self)})


def _moved(value: Any, device: Any, options: dict[str, Any]) -> Any:
    return value.to(device, **options) if hasattr(value, "to") else value


def shared_prefix(examples: Sequence[Encoded]) -> int:
    """Return how many leading tokens can be stored once: equal in all examples, and before any learnt
    token."""
    if len(examples) < 2:
        return 0
    common = _common_prefix([example.input_ids for example in examples])
    # The token before each target must be in the example's own part of the row.
    first_targets = (example.mask.index(1, 1) - 1 for example in examples)
    return min(common, *first_targets)


def _common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    # The smallest and the largest sequence in lexical order have the shortest common prefix.
    first, last = min(sequences), max(sequences)
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(last)))


def pack(examples: Sequence[Encoded], *, share_prefix: bool = True) -> PackedBatch:
    """Lay ``examples`` out in one row."""
    import torch

    prefix = shared_prefix(examples) if share_prefix else 0
    ids, positions = list(examples[0].input_ids[:prefix]), list(range(prefix))
    predicting: list[int] = []
    targets: list[int] = []
    for example in examples:
        start = len(ids) - prefix
        ids.extend(example.input_ids[prefix:])
        positions.extend(range(prefix, len(example)))
        learnt = [at for at in range(1, len(example)) if example.mask[at]]
        predicting.extend(start + at - 1 for at in learnt)
        targets.extend(example.input_ids[at] for at in learnt)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        predicting=torch.tensor(predicting),
        targets=torch.tensor(targets),
        layout=_layout([len(example) - prefix for example in examples], prefix),
        tokens=sum(len(example) for example in examples),
    )


def _layout(rests: Sequence[int], prefix: int) -> PackedLayout:
    import torch

    longest, start = max(rests), 0
    to_block: list[int] = []
    from_block: list[int] = []
    for row, length in enumerate(rests):
        last = start + length - 1
        to_block.extend(min(start + at, last) for at in range(longest))
        from_block.extend(range(row * longest, row * longest + length))
        start += length
    return PackedLayout(prefix, len(rests), longest, torch.tensor(to_block), torch.tensor(from_block))


def pad(examples: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Lay ``examples`` out in the usual way, [examples, longest] each: ids, attention mask, labels."""
    import torch

    longest = max(len(example) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, example in enumerate(examples):
        ids, mask = torch.tensor(example.input_ids), torch.tensor(example.mask)
        input_ids[row, : len(example)] = ids
        attention_mask[row, : len(example)] = 1
        labels[row, : len(example)] = torch.where(mask == 1, ids, IGNORED)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

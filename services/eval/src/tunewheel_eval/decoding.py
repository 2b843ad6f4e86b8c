"""Batched decoding and answer likelihoods on one loaded model.

What prompts share (a system prompt, mostly) is computed once and its keys and values are copied to every
row; the keys and values of a prompt then serve both the likelihood of its answers and the generation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel
    from tunewheel_basemodel.sampling import Sampler

Tokens = Sequence[int]

_SHORTEST_PREFIX = 8
_COMPACT_BELOW = 0.75
"""Rows that are done are dropped once fewer than this share is still writing."""
_LOGIT_BYTES = 256 << 20
"""Logits of answers are computed in slices that stay below this."""


@dataclass
class Prefilled:
    """Prompts in the model's memory. ``mask`` is (rows, tokens so far), ``lengths`` and ``logits`` are
    (rows,) and (rows, vocabulary): how many of the tokens are real, and what comes next."""

    cache: Cache
    mask: Tensor
    lengths: Tensor
    logits: Tensor

    def rows(self, indices: Tensor, *, spare: bool = True) -> Prefilled:
        """These rows only, in this order, repeats allowed; ``spare`` leaves this object usable."""
        cache = copy.deepcopy(self.cache) if spare else self.cache
        cache.batch_select_indices(indices)
        return Prefilled(cache, self.mask[indices], self.lengths[indices], self.logits[indices])


class Decoder:
    """One model, ready to answer. Not for several threads."""

    def __init__(self, model: PreTrainedModel, *, stop_ids: Iterable[int], pad_id: int) -> None:
        self._model = model
        self._stop_ids = frozenset(stop_ids)
        self._pad_id = pad_id
        self._prefix: tuple[int, ...] = ()
        self._prefix_cache: Cache | None = None
        self._shares = _is_plain(self._new_cache())

    def share_prefix(self, contexts: Sequence[Tokens]) -> int:
        """Compute what ``contexts`` begin with, once; returns its length. Call again for other weights."""
        self._prefix, self._prefix_cache = (), None
        common = _common_prefix(contexts)
        # Sliding windows and recurrent states cannot be copied to rows that pad in their middle.
        if not self._shares or len(contexts) < 2 or len(common) < _SHORTEST_PREFIX:
            return 0
        cache = self._new_cache()
        self._forward(self._tensor([common]), None, None, cache, logits_to_keep=1)
        self._prefix, self._prefix_cache = tuple(common), cache
        return len(common)

    def prefill(self, contexts: Sequence[Tokens]) -> Prefilled:
        """Read prompts into memory, padded on the left."""
        import torch

        cached = len(self._prefix)
        shared = all(tuple(context[:cached]) == self._prefix for context in contexts) and cached > 0
        rests = [list(context[cached if shared else 0 :]) for context in contexts]
        width = max(len(rest) for rest in rests)
        ids = self._tensor([[self._pad_id] * (width - len(rest)) + rest for rest in rests])
        real = self._tensor([[0] * (width - len(rest)) + [1] * len(rest) for rest in rests])
        cache, start = self._new_cache(), 0
        if shared and self._prefix_cache is not None:
            cache, start = copy.deepcopy(self._prefix_cache), cached
            cache.batch_repeat_interleave(len(contexts))
        mask = torch.cat([real.new_ones(len(contexts), start), real], dim=1)
        positions = (start + real.cumsum(dim=1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions, cache, logits_to_keep=1)[:, -1]
        return Prefilled(cache, mask, mask.sum(dim=1), logits)

    def log_likelihoods(self, contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]]) -> Any:
        """Sum of log-probabilities in nats of each answer after its context: one list per context."""
        return self.likelihoods_after(self.prefill(contexts), answers)

    def likelihoods_after(
        self, prefilled: Prefilled, answers: Sequence[Sequence[Tokens]]
    ) -> list[list[float]]:
        """The same, on prompts already read; they stay as they were."""
        import torch

        owners = [row for row, choices in enumerate(answers) for _ in choices]
        flat = [list(answer) for choices in answers for answer in choices]
        sums: list[float] = []
        step = self._answers_at_once(flat, prefilled.logits.shape[-1])
        for at in range(0, len(flat), step):
            rows = torch.tensor(owners[at : at + step], device=self._model.device)
            sums.extend(self._score(prefilled.rows(rows), flat[at : at + step]))
        found = iter(sums)
        return [[next(found) for _ in choices] for choices in answers]

    def generate(
        self, prefilled: Prefilled, *, max_new_tokens: int, samplers: Sequence[Sampler] = ()
    ) -> list[tuple[list[int], bool]]:
        """Continue: (token ids without the stop token, whether it stopped by itself) per row. ``samplers``:
        who chooses the tokens, one per row; without them the likeliest is chosen.

        Uses ``prefilled`` up.
        """
        import torch
        from tunewheel_basemodel.sampling import choose_tokens

        state, device = prefilled, self._model.device
        written: list[list[int]] = [[] for _ in range(state.logits.shape[0])]
        stopped = [False] * len(written)
        active = list(range(len(written)))
        for _ in range(max_new_tokens):
            choosing = [samplers[row] for row in active] if samplers else []
            chosen = choose_tokens(state.logits, choosing)
            for row, token in zip(active, chosen, strict=True):
                if token in self._stop_ids:
                    stopped[row] = True
                elif not stopped[row]:
                    written[row].append(token)
            going = [at for at, row in enumerate(active) if not stopped[row]]
            if not going or all(len(written[active[at]]) >= max_new_tokens for at in going):
                break
            if len(going) < _COMPACT_BELOW * len(active):
                state = state.rows(torch.tensor(going, device=device), spare=False)
                active, chosen = [active[at] for at in going], [chosen[at] for at in going]
            state = self._step(state, chosen)
        return list(zip(written, stopped, strict=True))

    def _step(self, state: Prefilled, chosen: list[int]) -> Prefilled:
        import torch

        mask = torch.cat([state.mask, state.mask.new_ones(len(chosen), 1)], dim=1)
        ids, positions = self._tensor([[token] for token in chosen]), state.lengths[:, None]
        logits = self._forward(ids, mask, positions, state.cache, logits_to_keep=1)[:, -1]
        return Prefilled(state.cache, mask, state.lengths + 1, logits)

    def _score(self, state: Prefilled, answers: list[list[int]]) -> list[float]:
        """Uses ``state`` up. The first token is already foretold; the others take one forward pass."""
        import torch

        first = state.logits.float().log_softmax(dim=-1)
        sums = [float(first[row, answer[0]]) for row, answer in enumerate(answers)]
        width = max(len(answer) for answer in answers) - 1
        if width == 0:
            return sums
        heads = [answer[:-1] for answer in answers]
        ids = self._tensor([head + [self._pad_id] * (width - len(head)) for head in heads])
        real = self._tensor([[1] * len(head) + [0] * (width - len(head)) for head in heads])
        mask = torch.cat([state.mask, real], dim=1)
        offsets = torch.arange(width, device=self._model.device)
        positions = state.lengths[:, None] + offsets[None, :]
        logits = self._forward(ids, mask, positions, state.cache, logits_to_keep=width)
        for row, answer in enumerate(answers):
            rest = torch.tensor(answer[1:], device=logits.device)
            if len(rest):
                said = logits[row, : len(rest)].float().log_softmax(dim=-1)
                sums[row] += float(said.gather(1, rest[:, None]).sum())
        return sums

    def _answers_at_once(self, answers: list[list[int]], vocabulary: int) -> int:
        longest = max((len(answer) for answer in answers), default=1)
        return max(1, _LOGIT_BYTES // (4 * longest * vocabulary))

    def _forward(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Cache, *, logits_to_keep: int
    ) -> Tensor:
        import torch

        with torch.inference_mode():
            return self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                cache=cache,
                use_cache=True,
                logits_to_keep=logits_to_keep,
            ).logits

    def _new_cache(self) -> Cache:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def _tensor(self, rows: Sequence[Tokens]) -> Tensor:
        import torch

        return torch.tensor([list(row) for row in rows], device=self._model.device)


def _common_prefix(contexts: Sequence[Tokens]) -> list[int]:
    """What all begin with, short of the last token of the shortest: each row must have one to itself."""
    if not contexts:
        return []
    common: list[int] = []
    for tokens in zip(*(context[:-1] for context in contexts), strict=False):
        if len(set(tokens)) > 1:
            break
        common.append(tokens[0])
    return common


def _is_plain(cache: Cache) -> bool:
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in cache.layers)

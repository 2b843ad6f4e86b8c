"""Chooses the next token of every row. A row's choice depends on its own logits and seed alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch

from tunewheel_engine.generation import Sampling

_NUCLEUS_WINDOW = 1024


class Sampler:
    """The random state of one request."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        self._generator = torch.Generator(device=device).manual_seed(self.seed % (1 << 63))

    def choose(self, logits: torch.Tensor) -> int:
        """Draw from ``logits`` [vocabulary], tempered and cut to ``top_k`` and then to ``top_p``.

        Nucleus sampling: arXiv:1904.09751. Drawing is by the exponential race: the smallest of
        Exp(1) / p is at i with probability p_i.
        """
        scaled = logits.float() / self.sampling.temperature
        indices: torch.Tensor | None = None
        if self.sampling.top_k or self.sampling.top_p < 1:
            scaled, indices = _sorted_head(scaled, self.sampling.top_k, self.sampling.top_p)
        chances = torch.softmax(scaled, dim=-1)
        if self.sampling.top_p < 1:
            above = chances.cumsum(-1) - chances
            chances = chances.masked_fill(above >= self.sampling.top_p, 0.0)
        race = torch.empty_like(chances).exponential_(generator=self._generator)
        winner = int((chances / race).argmax())
        return winner if indices is None else int(indices[winner])


def _sorted_head(scaled: torch.Tensor, top_k: int, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of ``scaled`` in falling order, with their indices: enough of them to hold ``top_p``.

    Sorting a whole vocabulary takes milliseconds; the nucleus is nearly always among the first thousand.
    """
    size = scaled.shape[-1]
    if top_k:
        return torch.topk(scaled, min(top_k, size))
    head, indices = torch.topk(scaled, min(_NUCLEUS_WINDOW, size))
    held = torch.exp(head.logsumexp(-1) - scaled.logsumexp(-1))
    if float(held) >= top_p:
        # Entries outside the head carry the rest of the mass; without them softmax over the head alone
        # would reach top_p too early.
        rest = torch.log1p(-held.clamp(max=1 - 1e-7)) + scaled.logsumexp(-1)
        return torch.cat([head, rest[None]]), torch.cat([indices, indices[-1:]])
    return torch.sort(scaled, descending=True)


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each row of ``logits`` [rows, vocabulary]."""
    chosen: list[int] = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if sampler.sampling.temperature > 0:
            chosen[row] = sampler.choose(logits[row])
    return chosen


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """Log probability of each row's token under its untempered ``logits`` [rows, vocabulary]."""
    picked = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].float()
    return (picked - logits.float().logsumexp(-1)).tolist()

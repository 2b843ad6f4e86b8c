"""Chooses the next token of every row. A row's choice depends on its own logits, tokens and seed alone.

The engine that serves and the process that judges choose by this one module, so that what was judged serves.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

_NUCLEUS_WINDOW = 1024


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; ``temperature`` 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    repetition_penalty: float = 1.0
    """What the scores of tokens that stand in the prompt or the answer already are lowered by; 1: nothing
    (CTRL, arXiv:1909.05858, section 4.1)."""
    presence_penalty: float = 0.0
    """Subtracted from the score of every token that the answer holds already (OpenAI's API reference)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's score as often as the answer holds the token (OpenAI's API reference)."""
    min_p: float = 0.0
    """Tokens with less than this share of the likeliest token's probability are never drawn
    (arXiv:2407.01082)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token and what is added to its score (OpenAI's API reference)."""

    @property
    def changes_scores(self) -> bool:
        """Whether the model's scores are changed before a token is chosen by them."""
        penalties = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1
        return bool(penalties or self.logit_bias)


class Constraint(Protocol):
    """Which tokens one answer may go on with, for example by a grammar."""

    def allowed(self, size: int) -> torch.Tensor:
        """Return the tokens below ``size`` that may come next, at least one, in rising order."""
        ...

    def accept(self, token: int) -> None:
        """Note that the answer goes on with ``token``."""
        ...


class Sampler:
    """The random state of one request, the tokens it holds where repeating them costs something, and the
    constraint that its answer keeps."""

    def __init__(
        self,
        sampling: Sampling,
        device: torch.device,
        *,
        prompt: Iterable[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        import torch

        self.sampling = sampling
        self.constraint = constraint
        self.seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        self._generator = torch.Generator(device=device).manual_seed(self.seed % (1 << 63))
        self._held = set(prompt) if sampling.repetition_penalty != 1 else set[int]()
        self._counts: dict[int, int] = {}

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token of the logits as they are is always chosen."""
        return not (self.sampling.temperature > 0 or self.sampling.changes_scores or self.constraint)

    def next_token(self, logits: torch.Tensor) -> int:
        """The token that follows, from ``logits`` [vocabulary]."""
        if self.sampling.changes_scores:
            logits = self._changed(logits)
        allowed: torch.Tensor | None = None
        if self.constraint is not None:
            allowed = self.constraint.allowed(logits.shape[-1]).to(logits.device)
            logits = logits[allowed]
        token = self.choose(logits) if self.sampling.temperature > 0 else int(logits.argmax())
        if allowed is not None:
            token = int(allowed[token])
        self._note(token)
        return token

    def _note(self, token: int) -> None:
        if self.sampling.repetition_penalty != 1:
            self._held.add(token)
        if self.sampling.presence_penalty or self.sampling.frequency_penalty:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self.constraint is not None:
            self.constraint.accept(token)

    def _changed(self, logits: torch.Tensor) -> torch.Tensor:
        """Add the biases, then apply the penalties: vLLM's order.

        A token that the answer holds ``c`` times loses ``c * frequency_penalty + presence_penalty``
        (OpenAI's API reference, "frequency and presence penalties").
        """
        import torch

        sampling, size = self.sampling, logits.shape[-1]
        biases = {token: bias for token, bias in sampling.logit_bias if token < size}
        if biases:
            logits = _add(logits, biases)
        penalty = sampling.repetition_penalty
        if penalty != 1:
            held = torch.tensor(sorted(self._held), device=logits.device)
            scores = logits[held]
            logits = logits.index_copy(0, held, torch.where(scores > 0, scores / penalty, scores * penalty))
        if self._counts:
            each, once = sampling.frequency_penalty, sampling.presence_penalty
            lost = {token: -(count * each + once) for token, count in self._counts.items()}
            logits = _add(logits, lost)
        return logits

    def choose(self, logits: torch.Tensor) -> int:
        """Draw from ``logits`` [vocabulary], tempered and cut to ``min_p``, to ``top_k`` and then to
        ``top_p``: vLLM's order.

        Nucleus sampling: arXiv:1904.09751. Drawing is by the exponential race: the smallest of
        Exp(1) / p is at i with probability p_i.
        """
        import torch

        scaled = logits.float() / self.sampling.temperature
        if self.sampling.min_p:
            # p_i < min_p * p_max, in logarithms
            scaled = scaled.masked_fill(scaled < scaled.max() + log(self.sampling.min_p), float("-inf"))
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
    import torch

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


def _add(logits: torch.Tensor, amounts: dict[int, float]) -> torch.Tensor:
    import torch

    tokens = torch.tensor(list(amounts), device=logits.device)
    return logits.index_add(
        0, tokens, torch.tensor(list(amounts.values()), dtype=logits.dtype, device=logits.device)
    )


def choose_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """One token for each row of ``logits`` [rows, vocabulary]."""
    chosen: list[int] = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.is_greedy:
            chosen[row] = sampler.next_token(logits[row])
    return chosen


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """Log probability of each row's token under its untempered ``logits`` [rows, vocabulary]."""
    import torch

    picked = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].float()
    return (picked - logits.float().logsumexp(-1)).tolist()


def likeliest(logits: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The ``count`` likeliest tokens under untempered ``logits`` [vocabulary], with their log
    probabilities."""
    scores = logits.float()
    best = scores.topk(min(count, scores.shape[-1]))
    return list(zip(best.indices.tolist(), (best.values - scores.logsumexp(-1)).tolist(), strict=True))

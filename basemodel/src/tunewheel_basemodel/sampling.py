"""Chooses the next token of every row. The choice depends only on the row's own logits, tokens and seed.

The engine and eval both use this module, so that a model is served as it was judged.
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
    """How the next token is chosen. ``temperature`` 0 chooses the likeliest token."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    repetition_penalty: float = 1.0
    """Factor by which the scores of tokens in the prompt or the answer are lowered; 1: not at all (CTRL,
    arXiv:1909.05858, section 4.1)."""
    presence_penalty: float = 0.0
    """Subtracted from the score of every token that is already in the answer (OpenAI's API reference)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's score once for each occurrence in the answer (OpenAI's API reference)."""
    min_p: float = 0.0
    """Tokens with a smaller probability than this share of the likeliest token's are never chosen
    (arXiv:2407.01082)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token and the number that is added to its score (OpenAI's API reference)."""

    @property
    def changes_scores(self) -> bool:
        """Whether the model's scores are changed before a token is chosen."""
        penalties = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1
        return bool(penalties or self.logit_bias)


class Constraint(Protocol):
    """The tokens with which one answer may continue, for example by a grammar."""

    def allowed(self, size: int) -> torch.Tensor:
        """Return the tokens below ``size`` that may come next, at least one, in rising order."""
        ...

    def accept(self, token: int) -> None:
        """Note that the answer continues with ``token``."""
        ...


class Sampler:
    """The state of one request for choosing tokens: its random generator, its token counts (if there are
    penalties for repetition) and its constraint."""

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
        """Whether the likeliest token of the unchanged logits is always chosen."""
        return not (self.sampling.temperature > 0 or self.sampling.changes_scores or self.constraint)

    def next_token(self, logits: torch.Tensor) -> int:
        """Return the next token, chosen from ``logits`` [vocabulary]."""
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
        """Add the biases, then apply the penalties, in vLLM's order.

        The score of a token that is ``c`` times in the answer is lowered by ``c * frequency_penalty +
        presence_penalty`` (OpenAI's API reference, "frequency and presence penalties").
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
        """Draw a token from ``logits`` [vocabulary], after temperature, ``min_p``, ``top_k`` and ``top_p``,
        in vLLM's order.

        Nucleus sampling: arXiv:1904.09751. The token is drawn by an exponential race: the smallest of Exp(1)
        / p is at i with probability p_i.
        """
        import torch

        scaled = logits.float() / self.sampling.temperature
        if self.sampling.min_p:
            # Mask tokens with p_i < min_p * p_max, in logarithms.
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
    """Return the largest values of ``scaled``, in falling order, with their indices: enough to cover
    ``top_p``.

    Sorting a whole vocabulary takes milliseconds, but the nucleus is nearly always among the first thousand
    tokens.
    """
    import torch

    size = scaled.shape[-1]
    if top_k:
        return torch.topk(scaled, min(top_k, size))
    head, indices = torch.topk(scaled, min(_NUCLEUS_WINDOW, size))
    held = torch.exp(head.logsumexp(-1) - scaled.logsumexp(-1))
    if float(held) >= top_p:
        # Entries outside the head have the rest of the probability. A softmax over the head alone would reach
        # top_p too early.
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
    """Return one token for each row of ``logits`` [rows, vocabulary]."""
    chosen: list[int] = logits.argmax(-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.is_greedy:
            chosen[row] = sampler.next_token(logits[row])
    return chosen


def logprobs_of(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """Return the log probability of each row's token under ``logits`` [rows, vocabulary], without
    temperature."""
    import torch

    picked = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].float()
    return (picked - logits.float().logsumexp(-1)).tolist()


def likeliest(logits: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """Return the ``count`` likeliest tokens under ``logits`` [vocabulary], without temperature, with their
    log probabilities."""
    scores = logits.float()
    best = scores.topk(min(count, scores.shape[-1]))
    return list(zip(best.indices.tolist(), (best.values - scores.logsumexp(-1)).tolist(), strict=True))

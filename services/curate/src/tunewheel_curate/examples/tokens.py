"""Counts the tokens of texts: with the model's own tokenizer, or by an estimate if there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tunewheel_contracts.formats.dataset import TokenizerUse

if TYPE_CHECKING:
    from tunewheel_basemodel.tokenizer import PreTrainedTokenizerBase

CHARACTERS_PER_TOKEN = 4
"""The usual estimate for English."""
_BATCH = 1_000
_SPOKEN = "Hi"


class Tokens(Protocol):
    """Counts tokens."""

    @property
    def use(self) -> TokenizerUse: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer, which also has its chat template; None: tokens are estimated."""
        ...

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        ...

    def conversation_sizes(self, conversations: Sequence[Sequence[str]]) -> list[int]:
        """Return the number of tokens of each conversation, given the contents of its messages."""
        ...


class EstimatedTokens:
    """Characters divided by ``CHARACTERS_PER_TOKEN``, rounded up."""

    tokenizer = None

    def __init__(self, use: TokenizerUse) -> None:
        self.use = use

    def sizes(self, texts: Sequence[str]) -> list[int]:
        return [-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts]

    def conversation_sizes(self, conversations: Sequence[Sequence[str]]) -> list[int]:
        lengths = [sum(len(text) for text in texts) for texts in conversations]
        return [-(-length // CHARACTERS_PER_TOKEN) for length in lengths]


class ModelTokens:
    """Counts with the base model's tokenizer. The tokens that the template adds per message are measured
    once."""

    def __init__(self, use: TokenizerUse, tokenizer: PreTrainedTokenizerBase) -> None:
        self.use = use
        self.tokenizer = tokenizer
        self._around = self._measure() if tokenizer.chat_template else 0

    def sizes(self, texts: Sequence[str]) -> list[int]:
        sizes: list[int] = []
        for start in range(0, len(texts), _BATCH):
            encoded = self.tokenizer(list(texts[start : start + _BATCH]), add_special_tokens=False)
            sizes += [len(ids) for ids in encoded["input_ids"]]
        return sizes

    def conversation_sizes(self, conversations: Sequence[Sequence[str]]) -> list[int]:
        sizes = iter(self.sizes([text for texts in conversations for text in texts]))
        return [sum(next(sizes) + self._around for _ in texts) for texts in conversations]

    def _measure(self) -> int:
        from tunewheel_basemodel.chat import render

        turns = [{"role": role, "content": _SPOKEN} for role in ("user", "assistant") * 2]
        short, long = (len(self._ids(render(self.tokenizer, turns[:n], False))) for n in (2, 4))
        return -(-(long - short) // 2) - len(self._ids(_SPOKEN))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def estimating(base_model: str, reason: str) -> EstimatedTokens:
    """Return a counter that estimates; ``reason`` says why there is no tokenizer."""
    return EstimatedTokens(TokenizerUse(base_model=base_model, reason=reason))

"""Text of an answer's tokens, whole or as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Detokenizer:
    """Text piece by piece; a character that spans tokens comes with its last one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend: Any = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        return self._stream.step(self._backend, token) or ""


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> str:
    """The text of a whole answer, as whoever is told it piece by piece has it in the end: of a character that
    the last token cut off there is nothing."""
    pieces = Detokenizer(tokenizer)
    return "".join(pieces.add(token) for token in tokens)

"""Turns an answer's tokens into text, as they are generated, and single tokens into bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Detokenizer:
    """Returns text token by token. A character that spans several tokens is returned with the last of
    them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend: Any = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        return self._stream.step(self._backend, token) or ""


class TokenBytes:
    """Returns the bytes of single tokens. A character that spans several tokens is complete in none of them.

    Byte-level tokenizers (GPT-2's) have a letter for every byte. SentencePiece tokenizers have ``<0x0A>`` for
    bytes and U+2581 for the space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend: Any = tokenizer.backend_tokenizer
        self._added = {id: token.content for id, token in tokenizer.added_tokens_decoder.items()}
        self._letters = _byte_of_letter() if _is_byte_level(self._backend.decoder) else None

    def of(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text: str = self._backend.id_to_token(token) or ""
        if self._letters is not None:
            return bytes(self._letters[letter] for letter in text if letter in self._letters)
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        return text.replace("\u2581", " ").encode()


def _is_byte_level(decoder: Any) -> bool:
    return decoder is not None and b"ByteLevel" in decoder.__getstate__()


def _byte_of_letter() -> dict[str, int]:
    """Return GPT-2's map from letters to bytes: printable bytes are their own letters, the others follow from
    U+0100 on."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + at): byte for at, byte in enumerate(others)}

"""The bytes of single tokens are those of the text that they write together."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from tunewheel_basemodel.detokenizing import Detokenizer, TokenBytes
from tunewheel_testing.tiny import tiny_tokenizer


def test_bytes_of_a_byte_level_tokenizer() -> None:
    tokenizer = tiny_tokenizer()
    written = TokenBytes(tokenizer)
    text = "Ein Fahrrad für 😀\n\tzwei\x7f"
    tokens = tokenizer(text).input_ids
    assert b"".join(written.of(token) for token in tokens) == text.encode()
    pieces = Detokenizer(tokenizer)
    assert "".join(pieces.add(token) for token in tokens) == text
    assert any(len(written.of(token)) == 1 and written.of(token)[0] > 0x7F for token in tokens)
    assert written.of(tokenizer.eos_token_id) == b"<|im_end|>"


def test_bytes_of_a_sentencepiece_tokenizer() -> None:
    names = ["<unk>", "\u2581bike", "<0xC3>", "<0xBC>", "s"]
    backend = Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    written = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert b"".join(written.of(token) for token in [1, 4, 2, 3]) == " bikesü".encode()

"""Writes a byte-level BPE tokenizer into GGUF (ggml-org/ggml, docs/gguf.md, "Tokenizer").

GGUF has only a name for how text is cut before merging (``tokenizer.ggml.pre``), not a description. A
tokenizer whose way of cutting has no such name is refused: llama.cpp would silently give other tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunewheel_train.errors import NotExported

if TYPE_CHECKING:
    from gguf import GGUFWriter

_SPECIAL = ("bos", "eos", "unk", "pad")


def add_vocabulary(writer: GGUFWriter, tokenizer: Any, *, rows: int) -> None:
    """Write tokens, merges, special ids and chat template of ``tokenizer``, for ``rows`` embeddings.

    Raises NotExported for a tokenizer that is not byte-level BPE, or that cuts text in a way without a name.
    """
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name_of_cut(described))
    tokens, kinds = _tokens(described, rows)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    for name in _SPECIAL:
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None and token >= rows:
            raise NotExported(
                f"its tokenizer's {name} token is {token}, but the model has {rows} embeddings; export "
                "safetensors"
            )
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(int(token))
    # The chat template writes its special tokens itself. Ask the tokenizer whether plain text gets a BOS
    # token.
    plain = tokenizer("a").input_ids
    writer.add_add_bos_token(bool(plain) and plain[0] == tokenizer.bos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def name_of_cut(described: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how ``tokenizer.json`` cuts text. Raises NotExported."""
    if described["model"]["type"] != "BPE" or described["model"].get("byte_fallback"):
        raise NotExported(
            f"its tokenizer is {described['model']['type']}, and only byte-level BPE is written as GGUF; "
            "export safetensors"
        )
    cut = _known_cut(described.get("pre_tokenizer") or {})
    normalizer = (described.get("normalizer") or {}).get("type")
    # llama.cpp does no NFC for Qwen. For Llama 3 it takes whole words that are tokens without merging.
    normalizes = {"qwen2": (None, "NFC")}.get(cut or "", (None,))
    if (
        cut is None
        or normalizer not in normalizes
        or bool(described["model"].get("ignore_merges")) != (cut == "llama-bpe")
    ):
        raise NotExported(
            "its tokenizer cuts text in a way that has no name in GGUF "
            f"({json.dumps(described.get('pre_tokenizer'))[:200]}); export safetensors"
        )
    return cut


def _known_cut(pre_tokenizer: Mapping[str, Any]) -> str | None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        digits = [{"type": "Digits", "individual_digits": True}]
        return {0: "gpt-2", 1: "smollm"}[len(before)] if before in ([], digits) else None
    if len(before) != 1 or before[0].get("type") != "Split" or before[0].get("behavior") != "Isolated":
        return None
    pattern = before[0]["pattern"].get("Regex")
    names = (name for name in ("llama-bpe", "qwen2") if GGUF_PRE_TOKENIZER_SPLITS[name] == pattern)
    return next(names, None)


def _tokens(described: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the token and the token type of every embedding. Rows without a token get a placeholder, as
    llama.cpp requires."""
    from gguf import TokenType

    known: dict[int, tuple[str, int]] = {
        number: (token, TokenType.NORMAL) for token, number in described["model"]["vocab"].items()
    }
    for added in described.get("added_tokens", ()):
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        known[added["id"]] = (added["content"], kind)
    filled = [known.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(rows)]
    return [token for token, _ in filled], [int(kind) for _, kind in filled]

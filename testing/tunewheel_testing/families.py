"""Small random models of the families that people export, with vocabularies that llama.cpp knows.

A published model of these families has gigabytes. The vocabularies and chat templates of Llama 3 and Qwen are
the published ones, which llama.cpp's sources hold for its own tests. Gemma's and Mistral's are SentencePiece
models, of which llama.cpp takes any: small ones are trained here on the example's pages.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PAGES = Path(__file__).resolve().parents[2] / "examples/helpdesk/sops"
_GEMMA_3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set head = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set head = '' %}{% endif %}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if loop.first %}{{ head }}{% endif %}{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_GEMMA_PIECES: dict[str, Any] = {
    "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>",
    "eos_piece": "<eos>", "bos_piece": "<bos>",
    "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>"],
}  # fmt: skip
_MISTRAL_PIECES: dict[str, Any] = {
    "unk_id": 0, "bos_id": 1, "eos_id": 2, "control_symbols": ["[INST]", "[/INST]"],
}  # fmt: skip
_LLAMA_3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
"""Of a shorter original context than the published 8,192: the scaling changes answers to short prompts."""
_GEMMA_3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}


@dataclass(frozen=True, slots=True)
class Family:
    """``template`` is a file of llama.cpp's, or the text. ``architecture`` is llama.cpp's name."""

    model_type: str
    architecture: str
    template: str
    end: str
    """The token that ends an answer."""
    vocabulary: str | None = None
    """A file of llama.cpp's."""
    pieces: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What SentencePiece is trained with, where there is no ``vocabulary``."""
    tokenizer: str = ""
    shape: Mapping[str, Any] = field(default_factory=dict[str, Any])
    system: bool = True
    """Whether the template takes a system message."""
    begins: bool = False
    """Whether the tokenizer itself writes a BOS token before a text, as most published ones do."""


FAMILIES: dict[str, Family] = {
    "llama": Family(
        "llama", "llama", "meta-llama-Llama-3.2-3B-Instruct.jinja", "<|eot_id|>", vocabulary="llama-bpe",
        shape={"rope_parameters": _LLAMA_3_ROPE}, begins=True,  # by which llama.cpp tells Llama 3 from others
    ),
    "qwen2": Family("qwen2", "qwen2", "Qwen-Qwen2.5-7B-Instruct.jinja", "<|im_end|>", vocabulary="qwen2"),
    "qwen3": Family(
        "qwen3", "qwen3", "Qwen-Qwen3-0.6B.jinja", "<|im_end|>", vocabulary="qwen2", shape={"head_dim": 64}
    ),
    "gemma2": Family(
        "gemma2", "gemma2", "google-gemma-2-2b-it.jinja", "<end_of_turn>", pieces=_GEMMA_PIECES,
        tokenizer="GemmaTokenizer", shape={"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 32},
        system=False, begins=True,
    ),
    "gemma3": Family(
        "gemma3_text", "gemma3", _GEMMA_3, "<end_of_turn>", pieces=_GEMMA_PIECES, tokenizer="GemmaTokenizer",
        # every sixth layer sees all, and the others what is within the window
        shape={"num_hidden_layers": 6, "head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 32,
               "rope_parameters": _GEMMA_3_ROPE},
    ),
    "mistral": Family(
        "mistral", "llama", "mistralai-Mistral-Nemo-Instruct-2407.jinja", "</s>", pieces=_MISTRAL_PIECES,
        tokenizer="LlamaTokenizer", shape={"sliding_window": None},
    ),
}  # fmt: skip


def write_family(family: Family, llama_cpp: Path, directory: Path) -> Path:
    """Write a random model with rows of 256, as K-quants demand. ``llama_cpp``: the folder of its sources.
    Returns ``directory``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = _tokenizer(family, llama_cpp / "models", directory)
    shape: dict[str, Any] = {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.1,
        "tie_word_embeddings": True, "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family.model_type, **{**shape, **family.shape})
        )
        for weight in model.parameters():
            if weight.ndim == 1:  # all norms and biases would be alike
                weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(family: Family, models: Path, directory: Path) -> Any:
    from tokenizers.processors import TemplateProcessing
    from tunewheel_basemodel.tokenizer import _from_gguf

    tokenizer: Any
    if family.vocabulary is None:
        tokenizer = train_pieces(family, directory)
    else:
        tokenizer = _from_gguf(models / f"ggml-vocab-{family.vocabulary}.gguf")
    if family.begins:
        begin = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{begin[0]} $A", pair=f"{begin[0]} $A $B", special_tokens=[begin]
        )
    tokenizer.eos_token = family.end
    published = models / "templates" / family.template if family.template.endswith(".jinja") else None
    tokenizer.chat_template = published.read_text("utf-8") if published else family.template
    return tokenizer


def train_pieces(family: Family, directory: Path) -> Any:
    """Train a SentencePiece model, and write it to ``directory``. Returns its tokenizer, without a chat
    template."""
    from sentencepiece import SentencePieceTrainer
    from transformers import AutoTokenizer

    lines = [line for page in sorted(_PAGES.glob("*.md")) for line in page.read_text("utf-8").splitlines()]
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line.strip()), model_writer=written, vocab_size=1024,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, num_threads=1, minloglevel=2, **family.pieces,
    )  # fmt: skip
    (directory / "tokenizer.model").write_bytes(written.getvalue())
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": family.tokenizer}))
    return AutoTokenizer.from_pretrained(str(directory))

"""Writes tiny random chat models and adapters, with which tests of the real code take milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast
    from tunewheel_basemodel.locate import BaseModel

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CORPUS = [
    "The charger of my bike shows a red light and the battery does not fill.",
    '{"category": "billing", "priority": "normal", "reply": "We have sent the invoice again."}',
    "Please tell me when the parcel arrives, thank you very much!",
]


def write_tiny_model(
    directory: Path, *, seed: int = 0, hidden_size: int = 32, layers: int = 2, context: int = 512
) -> Path:
    """Write a random Llama model with some ten thousand weights, a byte-level tokenizer and a ChatML
    template.

    The same arguments give the same bytes. Attention is grouped (4 heads, 2 key-value heads), and
    ``hidden_size`` must be divisible by 4. ``context`` is in tokens, hardly longer than a byte. Returns
    ``directory``.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=_SPECIAL.index("<|im_start|>"),
        eos_token_id=_SPECIAL.index("<|im_end|>"),
        pad_token_id=_SPECIAL.index("<|im_end|>"),
        initializer_range=0.2,  # With the usual 0.02 such a small model repeats the same token for ever.
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_random_adapter(
    base: BaseModel, directory: Path, *, seed: int, std: float = 0.3, **options: Any
) -> Path:
    """Write a LoRA adapter with random weights, which change the answers of ``base``; the larger ``std``, the
    more. ``options`` are peft's. Returns ``directory``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tunewheel_basemodel.loading import load_base

    model, _ = load_base(base, dtype="float32", device="cpu")
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **options}
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    tuned.save_pretrained(str(directory))
    return directory


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tiny model's tokenizer: every byte, a few merges, a ChatML template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(),
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def _byte_level_bpe() -> object:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer

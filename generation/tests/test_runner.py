"""The batch gives what transformers' own generate gives, however prompts are cut and rows move."""

from __future__ import annotations

import pytest
import torch
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_generation.runner import load_runner
from tunewheel_generation.sight import Sight, sight_of

PROMPTS = [[5, 9, 33, 70, 101, 7, 250, 12], [8], [40, 41] * 15, [300, 2, 17]]


@pytest.fixture(params=["both", "packed", "plain"])
def runner(request, tiny_base, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr("tunewheel_generation.runner.can_pack", lambda _: False)
    if request.param == "packed":
        monkeypatch.setattr("tunewheel_generation.runner._SMALL", 1 << 62)
    return load_runner(
        tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=4, tokens=64
    )


def expected(model, prompt: list[int], count: int) -> list[int]:
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt)),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
    )
    return out[0, len(prompt) :].tolist()


def read(runner, prompt: list[int], row: int, *, piece: int = 64) -> int:
    """Read a prompt into a row; returns the token that follows."""
    for start in range(0, len(prompt), piece):
        logits = runner.read([prompt[start : start + piece]], [start], [None], first=row)
    return int(logits.argmax())


def steps(runner, rows: list[list[int]], lengths: list[int], count: int) -> None:
    for _ in range(count):
        logits = runner.read([[row[-1]] for row in rows], lengths, [None] * len(rows))
        for at, token in enumerate(logits.argmax(-1).tolist()):
            rows[at].append(token)
            lengths[at] += 1


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_a_batch_of_different_lengths(runner, tiny_model, piece: int) -> None:
    rows = [[read(runner, prompt, at, piece=piece)] for at, prompt in enumerate(PROMPTS)]
    steps(runner, rows, [len(prompt) for prompt in PROMPTS], 11)
    assert rows == [expected(tiny_model, prompt, 12) for prompt in PROMPTS]


def test_rows_join_and_leave(runner, tiny_model) -> None:
    rows, lengths = [], []

    def join(prompt: list[int]) -> None:
        rows.append([read(runner, prompt, len(rows))])
        lengths.append(len(prompt))

    join(PROMPTS[0])
    join(PROMPTS[1])
    steps(runner, rows, lengths, 3)
    join(PROMPTS[2])
    steps(runner, rows, lengths, 2)
    left = rows[0]
    runner.move(2, 0, lengths[2])
    rows[0], lengths[0] = rows.pop(), lengths.pop()
    steps(runner, rows, lengths, 2)
    join(PROMPTS[3])
    steps(runner, rows, lengths, 3)
    made = {0: left, 2: rows[0], 1: rows[1], 3: rows[2]}
    for at, tokens in made.items():
        assert tokens == expected(tiny_model, PROMPTS[at], len(tokens))


def test_an_earlier_request_in_the_row_has_no_effect(runner, tiny_model) -> None:
    read(runner, PROMPTS[2], 0)
    rows = [[read(runner, PROMPTS[3], 0)]]
    steps(runner, rows, [len(PROMPTS[3])], 5)
    assert rows == [expected(tiny_model, PROMPTS[3], 6)]


def test_the_context_is_the_smaller_of_model_and_setting(tiny_base) -> None:
    for tokens, most in ((64, 64), (10_000, 512)):
        runner = load_runner(
            tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=1, tokens=tokens
        )
        assert runner.max_tokens == most


def test_attention_windows_are_read_and_recurrent_states_refused() -> None:
    from transformers import LlamaConfig, MistralConfig, Qwen3NextConfig

    assert sight_of(LlamaConfig(max_position_embeddings=300)) == Sight(300)
    sliding = MistralConfig(max_position_embeddings=3000, sliding_window=128)
    assert sight_of(sliding) == Sight(3000, 128, everywhere=True)
    with pytest.raises(BaseModelNotFound, match="linear_attention"):
        sight_of(Qwen3NextConfig())


SLIDING = {"sliding_window": 9}
FAMILIES = {
    "Qwen2": {},
    "Gemma": {},
    "Phi": {},
    "GPTNeoX": {},
    "Mistral": SLIDING,
    "Gemma3Text": SLIDING | {"layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_served_right(tmp_path, family: str) -> None:
    import transformers
    from tunewheel_basemodel.loading import load_base
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_testing.tiny import write_tiny_model

    path = write_tiny_model(tmp_path / family)
    options = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    options |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
    options |= FAMILIES[family]
    if family == "GPTNeoX":
        del options["num_key_value_heads"], options["head_dim"]
    config = getattr(transformers, f"{family}Config")(
        **options, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=2
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for file in path.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(path)
    base = locate_base_model(str(path), cache_dir=tmp_path)
    original = load_base(base, dtype="float32", device="cpu")[0]
    runner = load_runner(base, quantization=None, trained_dtype="float32", dtype="float32", rows=4, tokens=64)
    logits = runner.read(PROMPTS, [0] * len(PROMPTS), [None] * len(PROMPTS))
    rows = [[token] for token in logits.argmax(-1).tolist()]
    steps(runner, rows, [len(prompt) for prompt in PROMPTS], 7)
    assert rows == [expected(original, prompt, 8) for prompt in PROMPTS]

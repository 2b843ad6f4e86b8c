"""The batch gives what transformers' own generate gives, however prompts are cut and rows move."""

from __future__ import annotations

import pytest
import torch
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_generation.runner import _longest, load_runner

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


def read_in_pieces(runner, prompt: list[int], piece: int) -> torch.Tensor:
    for start in range(0, len(prompt), piece):
        logits = runner.read(prompt[start : start + piece], start, None)
    return logits


def steps(runner, rows: list[list[int]], lengths: list[int], count: int) -> None:
    for _ in range(count):
        logits = runner.step([row[-1] for row in rows], lengths, [None] * len(rows))
        for at, token in enumerate(logits.argmax(-1).tolist()):
            rows[at].append(token)
            lengths[at] += 1


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_a_batch_of_different_lengths(runner, tiny_model, piece: int) -> None:
    rows = []
    for at, prompt in enumerate(PROMPTS):
        rows.append([int(read_in_pieces(runner, prompt, piece).argmax())])
        runner.admit(at, len(prompt))
    steps(runner, rows, [len(prompt) for prompt in PROMPTS], 11)
    assert rows == [expected(tiny_model, prompt, 12) for prompt in PROMPTS]


def test_rows_join_and_leave(runner, tiny_model) -> None:
    rows, lengths = [], []

    def join(prompt: list[int]) -> None:
        rows.append([int(runner.read(prompt, 0, None).argmax())])
        runner.admit(len(rows) - 1, len(prompt))
        lengths.append(len(prompt))

    join(PROMPTS[0])
    join(PROMPTS[1])
    steps(runner, rows, lengths, 3)
    join(PROMPTS[2])
    steps(runner, rows, lengths, 2)
    left = rows[0]
    runner.replace(0, 2, lengths[2])
    rows[0], lengths[0] = rows.pop(), lengths.pop()
    steps(runner, rows, lengths, 2)
    join(PROMPTS[3])
    steps(runner, rows, lengths, 3)
    made = {0: left, 2: rows[0], 1: rows[1], 3: rows[2]}
    for at, tokens in made.items():
        assert tokens == expected(tiny_model, PROMPTS[at], len(tokens))


def test_what_an_earlier_request_left_does_not_show(runner, tiny_model) -> None:
    runner.read(PROMPTS[2], 0, None)
    runner.admit(0, len(PROMPTS[2]))
    rows = [[int(runner.read(PROMPTS[3], 0, None).argmax())]]
    runner.admit(0, len(PROMPTS[3]))
    steps(runner, rows, [len(PROMPTS[3])], 5)
    assert rows == [expected(tiny_model, PROMPTS[3], 6)]


def test_the_context_is_the_smaller_of_model_and_setting(tiny_base) -> None:
    for tokens, most in ((64, 64), (10_000, 512)):
        runner = load_runner(
            tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=1, tokens=tokens
        )
        assert runner.max_tokens == most


def test_a_sliding_window_bounds_the_context_and_other_states_are_refused() -> None:
    from transformers import LlamaConfig, MambaConfig, MistralConfig

    assert _longest(LlamaConfig(max_position_embeddings=300)) == 300
    assert _longest(MistralConfig(max_position_embeddings=3000, sliding_window=128)) == 128
    with pytest.raises((BaseModelNotFound, AttributeError)):
        _longest(MambaConfig())


@pytest.mark.parametrize("family", ["Qwen2", "Gemma", "Phi", "GPTNeoX", "Mistral"])
def test_other_families_are_served_right(tmp_path, family: str) -> None:
    import transformers
    from tunewheel_basemodel.loading import load_base
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_basemodel.tiny import write_tiny_model

    path = write_tiny_model(tmp_path / family)
    options = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    options |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
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
    rows = []
    for at, prompt in enumerate(PROMPTS):
        rows.append([int(runner.read(prompt, 0, None).argmax())])
        runner.admit(at, len(prompt))
    steps(runner, rows, [len(prompt) for prompt in PROMPTS], 7)
    assert rows == [expected(original, prompt, 8) for prompt in PROMPTS]

"""Packing with a shared prefix changes nothing but the time: loss and gradients are those of each example."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM
from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.packing import pack, pad, shared_prefix
from tunewheel_train.model.attention import NAME, NotEquivalent, packed_attention, use_packed_attention


def one_by_one(model, examples: list[Encoded]) -> torch.Tensor:
    losses = []
    for example in examples:
        ids, mask = torch.tensor([example.input_ids]), torch.tensor(example.mask[1:], dtype=torch.bool)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        losses.append(F.cross_entropy(logits[mask], ids[0, 1:][mask], reduction="sum"))
    return torch.stack(losses).sum()


def packed(model, examples: list[Encoded], *, share_prefix: bool = True) -> torch.Tensor:
    batch = pack(examples, share_prefix=share_prefix)
    logits = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False,
        logits_to_keep=batch.predicting, packed=batch.layout,
    ).logits[0]  # fmt: skip
    return F.cross_entropy(logits, batch.targets, reduction="sum")


def gradients(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_and_gradients_are_those_of_each_example_alone(tiny, encoded, share_prefix):
    model, _ = tiny
    examples = encoded[:6]
    expected_loss = one_by_one(model, examples)
    expected = gradients(model, expected_loss)
    use_packed_attention(model, encoded)
    loss = packed(model, examples, share_prefix=share_prefix)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    found = gradients(model, loss)
    assert set(found) == set(expected)
    assert len(found) >= 20
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name],
            gradient,
            rtol=1e-4,
            atol=1e-5 * float(gradient.abs().max()),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_long_rows_take_the_other_kernel_and_agree(tiny, encoded, monkeypatch):
    model, _ = tiny
    expected = one_by_one(model, encoded[:4])
    use_packed_attention(model, encoded)
    monkeypatch.setattr("tunewheel_train.model.attention._EXPLICIT_UP_TO", 0)
    torch.testing.assert_close(packed(model, encoded[:4]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share_prefix", [False, True])
def test_the_branches_of_a_gpu_give_the_same_loss_and_gradients(tiny, encoded, monkeypatch, share_prefix):
    model = tiny[0]
    expected_loss = one_by_one(model, encoded)
    expected = gradients(model, expected_loss)
    use_packed_attention(model, encoded)
    monkeypatch.setattr("tunewheel_train.model.attention._on_gpu", lambda _: True)
    loss = packed(model, encoded, share_prefix=share_prefix)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-4)
    found = gradients(model, loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("dtype", "heads"), [(torch.bfloat16, 2), (torch.float32, 8)])
def test_a_gpu_gets_no_mask_and_in_half_precision_no_copies_of_the_heads(monkeypatch, dtype, heads):
    called: list[tuple[int, dict[str, object]]] = []

    def kernel(q, k, v, **options):
        called.append((k.shape[1], options))
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    examples = [Encoded(str(n), tuple(range(9)), (0,) * 6 + (1,) * 3) for n in range(2)]
    layout = pack(examples, share_prefix=False).layout.to("meta")
    q, k, v = (torch.zeros(1, n, 18, 64, dtype=dtype, device="meta") for n in (8, 2, 2))
    packed_attention(torch.nn.Identity(), q, k, v, None, packed=layout)
    half = dtype is torch.bfloat16
    assert called == [(heads, {"is_causal": True, "scale": 0.125, "enable_gqa": half})]


def test_the_prefix_is_stored_once(encoded):
    batch = pack(encoded[:6])
    shared = shared_prefix(encoded[:6])
    assert shared > 20
    assert batch.input_ids.numel() == batch.tokens - 5 * shared
    assert batch.tokens == sum(len(example) for example in encoded[:6])


def test_equal_examples_still_predict_their_answers_from_their_own_part(tiny, encoded):
    model, _ = tiny
    expected = one_by_one(model, [encoded[0], encoded[0]])
    use_packed_attention(model, encoded)
    torch.testing.assert_close(packed(model, [encoded[0], encoded[0]]), expected, rtol=1e-5, atol=1e-5)


def test_one_example_shares_nothing(encoded):
    assert shared_prefix(encoded[:1]) == 0
    assert pack(encoded[:1]).input_ids.numel() == len(encoded[0])


def test_a_model_that_attends_otherwise_is_refused(tiny, encoded, monkeypatch):
    model, _ = tiny
    before = model.config._attn_implementation
    monkeypatch.setattr("tunewheel_train.model.attention._HIDDEN", 0.0)  # as if the model were not causal
    with pytest.raises(NotEquivalent, match="log-probabilities"):
        use_packed_attention(model, encoded)
    assert model.config._attn_implementation == before != NAME


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"softcap": 50.0}, "softcap 50.0"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"sliding_window": 8}, "sliding_window 8"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"is_causal": False}, "is_causal False"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_another_attention_than_causal_is_refused_by_its_argument(encoded, argument, said):
    batch = pack(encoded[:2])
    heads = torch.zeros(1, 2, batch.input_ids.numel(), 4)
    with pytest.raises(NotEquivalent, match=f"its attention takes {said}, which"):
        packed_attention(torch.nn.Module(), heads, heads, heads, None, packed=batch.layout, **argument)


def test_arguments_that_leave_the_attention_as_it_is_are_taken(encoded):
    batch = pack(encoded[:2])
    heads = torch.zeros(1, 2, batch.input_ids.numel(), 4)
    harmless = {
        "softcap": None, "s_aux": None, "is_causal": True, "output_router_logits": False,
        "position_ids": batch.position_ids, "sliding_window": max(map(len, encoded[:2])),
    }  # fmt: skip
    packed_attention(torch.nn.Module(), heads, heads, heads, None, packed=batch.layout, **harmless)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("attention_chunk_size", 16, "attention_chunk_size 16"), ("attention_dropout", 0.1, "has dropout")],
)
def test_another_attention_that_only_the_config_tells_of_is_refused(tiny, encoded, name, value, said):
    model, _ = tiny
    setattr(model.config, name, value)
    with pytest.raises(NotEquivalent, match=said):
        use_packed_attention(model, encoded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("model_type", "more"),
    [("lfm2", {"layer_types": ["conv", "full_attention"]}), ("bloom", {"n_layer": 2, "n_head": 4}),
     ("qwen3_next", {"num_experts": 0})],
    ids=["convolution", "positions by place in the row", "recurrence"],
)  # fmt: skip
def test_layers_that_read_the_neighbour_of_an_example_are_refused(encoded, model_type, more, dtype):
    shape = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 1024, "pad_token_id": 0,
    }  # fmt: skip
    config = AutoConfig.for_model(model_type, **(shape | more))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    before = model.config._attn_implementation
    with pytest.raises(NotEquivalent, match=r"read the neighbour|log-probabilities"):
        use_packed_attention(model, encoded)
    assert model.config._attn_implementation == before != NAME


BEGINNING = tuple(range(20, 50))
ALIKE = {
    "but for a label": [((*BEGINNING, label), 30) for label in (7, 9)],
    "but for a label and an end": [((*BEGINNING, label, 2), 30) for label in (7, 9)],
    "altogether": [((*BEGINNING, 7, 8), 20)] * 2,
    "in answers far behind long questions": [((*range(1, 400), first, *BEGINNING), 420) for first in (7, 9)],
}
"""Token ids of two examples, and how many of them are asked."""


@pytest.mark.parametrize(
    ("layers", "dtype"),
    [(["conv", "full_attention"], torch.float32), (["conv", "full_attention"], torch.bfloat16),
     (["conv", "conv"], torch.float32)],
)  # fmt: skip
@pytest.mark.parametrize("alike", ALIKE)
def test_the_neighbour_is_seen_whatever_the_examples_have_in_common(alike: str, dtype, layers):
    shape = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "pad_token_id": 0, "layer_types": layers,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **shape)).to(dtype)
    examples = [
        Encoded(str(at), ids, tuple(int(place >= asked) for place in range(len(ids))))
        for at, (ids, asked) in enumerate(ALIKE[alike])
    ]
    with pytest.raises(NotEquivalent, match="read the neighbour"):
        use_packed_attention(model, examples)


def test_padding_is_masked_and_not_learnt(encoded):
    batch = pad(encoded[:3], pad_token_id=0)
    assert int(batch["attention_mask"].sum()) == sum(len(example) for example in encoded[:3])
    assert int((batch["labels"] != -100).sum()) == sum(sum(example.mask) for example in encoded[:3])

"""Serving layers compute what the originals do, whatever form their weights have."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_generation.linear import Delta, Deltas, Layout, ServingLinear, can_pack, replace_linears
from tunewheel_testing.tiny import write_tiny_model


@pytest.mark.parametrize("layout", ["plain", "packed", "both"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_with_and_without_an_update(layout: Layout, bias: bool) -> None:
    if layout != "plain" and not can_pack(torch.device("cpu")):
        pytest.skip("this torch has no oneDNN")
    torch.manual_seed(0)
    linear, deltas = nn.Linear(24, 40, bias=bias), Deltas()
    given = linear.bias.data if bias else None
    serving = ServingLinear("x", linear.weight.data, given, deltas, layout=layout)
    a, b, mask = (
        torch.randn(24, 6),
        torch.randn(6, 40),
        torch.tensor([1.0, 0.0, 1.0])[:, None, None].expand(3, 1, 6),
    )
    for x in (torch.randn(1, 1, 24), torch.randn(1, 7, 24), torch.randn(3, 1, 24)):
        with torch.inference_mode():
            deltas.active = {}
            assert torch.allclose(serving(x), linear(x), atol=1e-5)
            deltas.active = {"x": Delta(a, b, None), "y": Delta(a, b, None)}
            assert torch.allclose(serving(x), linear(x) + x @ a @ b, atol=1e-4)
    with torch.inference_mode():
        deltas.active = {"x": Delta(a, b, mask)}
        out, plain = serving(x), linear(x)
    assert torch.allclose(out[1], plain[1], atol=1e-5)
    assert torch.allclose(out[0], (plain + x @ a @ b)[0], atol=1e-4)


def test_a_row_without_the_update_is_not_touched_by_it() -> None:
    torch.manual_seed(0)
    deltas = Deltas()
    serving = ServingLinear("x", torch.randn(16, 8), None, deltas, layout="plain")
    x, mask = torch.randn(2, 1, 8), torch.tensor([[[0.0]], [[1.0]]])
    plain = serving(x)
    deltas.active = {"x": Delta(torch.randn(8, 1), torch.randn(1, 16) * 1e6, mask)}
    assert torch.equal(serving(x)[0], plain[0])


@pytest.mark.parametrize(("quantization", "unpack"), [(None, True), ("nf4", True), ("nf4", False)])
def test_a_whole_model_stays_itself(tmp_path, quantization, unpack: bool) -> None:
    path = write_tiny_model(tmp_path / "wide", hidden_size=64)
    base = locate_base_model(str(path), cache_dir=tmp_path)
    model = load_base(base, dtype="float32", quantization=quantization, device="cpu")[0]
    tokens = torch.tensor([[5, 9, 33, 70]])
    with torch.inference_mode():
        before = model(tokens).logits
        layout = "packed" if can_pack(torch.device("cpu")) else "plain"
        deltas = Deltas()
        names = replace_linears(model, deltas, dtype=torch.float32, layout=layout, unpack=unpack)
        after = model(tokens).logits
        name = "model.layers.0.mlp.up_proj"
        deltas.active = {name: Delta(torch.ones(names[name][0], 1), torch.ones(1, names[name][1]), None)}
        updated = model(tokens).logits
    assert len(names) == 2 * 7 + 1
    assert torch.allclose(before, after, atol=1e-3)
    assert not torch.allclose(before, updated, atol=1e-2)

"""Every combination of facts, and what a choice does to a model."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.model.kernels import Facts, Kernels, choose, facts_of, use

CAPABILITIES = (None, (7, 0), (7, 5), (8, 0), (8, 9), (9, 0), (12, 0))
FACTS = [
    Facts(capability, liger, flash, half)
    for capability, liger, flash, half in itertools.product(CAPABILITIES, *[(False, True)] * 3)
]


@pytest.mark.parametrize("facts", FACTS, ids=str)
def test_a_kernel_is_taken_exactly_where_all_it_needs_is_there(facts: Facts):
    able = facts.capability is not None and facts.capability >= (8, 0)
    chosen = choose(facts)
    assert (chosen.layers == "liger") == (able and facts.liger)
    assert (chosen.attention == "flash_attention_2") == (
        able and facts.flash_attention and facts.half_precision
    )
    assert chosen.compiled == "no"


def test_a_processor_computes_by_torch(trained):
    told = {"layers": "torch", "attention": "sdpa", "compiled": "no"}
    run, outcome = trained("lora")
    assert choose(facts_of("llama", TrainSpec(), "bfloat16")) == Kernels()
    assert {name: outcome.versions[f"kernels.{name}"] for name in told} == told
    assert next(m for m in run.messages if m.kind == "started").kernels == told


def test_liger_is_given_the_layers_and_not_the_loss(monkeypatch):
    """Its kernels need a GPU; what can be held here is what it is asked for."""
    asked: list[dict[str, Any]] = []
    library = ModuleType("liger_kernel.transformers.monkey_patch")
    library._apply_liger_kernel_to_instance = lambda **told: asked.append(told)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", ModuleType("liger_kernel.transformers"))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    model = object()
    use(Kernels(layers="liger"), model)
    assert asked == [{"model": model, "cross_entropy": False, "fused_linear_cross_entropy": False}]

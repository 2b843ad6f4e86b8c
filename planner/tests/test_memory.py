from __future__ import annotations

import pytest
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import MemoryParts
from tunewheel_planner.memory import NF4_BYTES, Rows, estimate_memory, weights_bytes
from tunewheel_planner.shapes import KNOWN, ModelShape

SHAPE = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]
LLAMA_65B = ModelShape(
    hidden=8192, layers=80, heads=64, kv_heads=64, head_size=128, intermediate=22016, vocabulary=32000
)
ROWS = Rows(tokens=4096, longest=512, learnt=1000)


def estimate(method: TrainMethod = TrainMethod.LORA, rows: Rows = ROWS, **options: object) -> MemoryParts:
    return estimate_memory(SHAPE, rows, method=method, **options)  # type: ignore[arg-type]


def test_a_4_bit_weight_takes_what_the_qlora_paper_says() -> None:
    # §3: 0.127 bits per parameter for the scales, instead of 0.5 without double quantisation
    bits = NF4_BYTES * 8
    assert bits == pytest.approx(4.127, abs=1e-3)


def test_65b_trains_on_48_gb_as_in_the_qlora_paper() -> None:
    parts = estimate_memory(
        LLAMA_65B, Rows(tokens=512, longest=512, learnt=256), method=TrainMethod.QLORA, rank=64,
        gradient_checkpointing=True, eight_bit_optimizer=True,
    )  # fmt: skip
    assert 33e9 < parts.weights < 36e9
    assert parts.total < 48e9


def test_full_costs_sixteen_bytes_a_parameter_and_the_rounded_copy() -> None:
    parts = estimate(TrainMethod.FULL)
    assert parts.weights + parts.gradients + parts.optimizer == 18 * SHAPE.parameters
    assert estimate(TrainMethod.FULL, precision="float32").weights == 4 * SHAPE.parameters
    assert parts.adapters == 0


def test_an_adapters_gradients_and_moments_are_small() -> None:
    parts = estimate()
    assert parts.adapters == parts.gradients == 4 * SHAPE.adapter_parameters(16)
    assert parts.optimizer == 2 * parts.gradients
    assert estimate(eight_bit_optimizer=True).optimizer == parts.optimizer // 4


def test_weights_shrink_from_method_to_method() -> None:
    sizes = [
        weights_bytes(SHAPE, method, "bfloat16")
        for method in (TrainMethod.FULL, TrainMethod.LORA, TrainMethod.QLORA)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


def test_activations_grow_with_tokens_and_shrink_by_recomputing() -> None:
    twice = estimate(rows=Rows(tokens=8192, longest=512, learnt=2000))
    assert twice.activations == 2 * estimate().activations
    assert estimate(gradient_checkpointing=True).activations < estimate().activations / 8


def test_explicit_scores_are_kept_on_a_cpu_up_to_their_length_only() -> None:
    short, long = Rows(4096, 768, 1000), Rows(4096, 769, 1000)
    assert estimate(rows=short, kind="cpu").activations > estimate(rows=long, kind="cpu").activations
    assert estimate(rows=short).activations == estimate(rows=long).activations


def test_the_total_is_the_sum_of_its_parts() -> None:
    parts = estimate()
    assert parts.total == sum(parts.model_dump().values())
    assert len(parts.model_dump()) == 7

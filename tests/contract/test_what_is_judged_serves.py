"""The same prompts through eval's measuring and through gateway and engine give the same answers.

On a tiny random model, whose answers any difference in template, prompt, decoding or limit changes.
``make bench NAME=conformance`` asks two hundred prompts of SmolLM2, in bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_testing.tiny import write_random_adapter, write_tiny_model

from ..bench.conformance import both_ways

QUESTIONS = [
    f"{said} {number}?"
    for number in range(7)
    for said in ("Where is my card", "Why was I charged twice, and who will pay me back the", "refund")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    import torch

    torch.set_num_threads(1)
    path = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return locate_base_model(str(path), cache_dir=path.parent)


def a_dora(base: BaseModel, folder: Path) -> TrainMethod:
    write_random_adapter(base, folder, seed=7, std=0.02, use_dora=True)
    return TrainMethod.LORA


def a_whole_model(base: BaseModel, folder: Path) -> TrainMethod:
    """Write a model of the base's shape, with other weights."""
    write_tiny_model(folder, seed=7)
    return TrainMethod.FULL


@pytest.mark.parametrize(
    "model", [pytest.param(a_dora, marks=pytest.mark.nightly("matrices")), a_whole_model]
)
async def test_what_has_weights_of_its_own_is_judged_and_serves_alike(
    base: BaseModel, tmp_path: Path, model: Callable[[BaseModel, Path], TrainMethod]
):
    pairs = await both_ways(base, QUESTIONS[:9], tmp_path, limit=12, model=model)
    assert [served for _, served in pairs] == [judged for judged, _ in pairs]
    assert len({judged for judged, _ in pairs}) > 2, "answers that differ by question"


@pytest.mark.parametrize(
    "decoding",
    [
        pytest.param(Decoding(), marks=pytest.mark.nightly("matrices")),
        Decoding(repetition_penalty=1.3),
        Decoding(temperature=0.8, top_p=0.9, seed=11),
    ],
    ids=["greedy", "penalised", "drawn"],
)
async def test_what_is_judged_serves(base: BaseModel, tmp_path: Path, decoding: Decoding):
    pairs = await both_ways(base, QUESTIONS, tmp_path, decoding=decoding, limit=12)
    assert [served for _, served in pairs] == [judged for judged, _ in pairs]
    assert len({judged for judged, _ in pairs}) > len(QUESTIONS) / 2, "answers that differ by question"

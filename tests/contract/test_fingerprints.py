"""What eval measures is what the gateway finds at the engine of the judged model, and at no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.formats.fingerprint import PROMPTS, NextTokens
from tunewheel_serve_gateway.upstream.fingerprints import compare
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.fingerprints import (
    Engine,
    Precision,
    Recorder,
    drifted,
    engine_on,
    int8,
    nf4,
    variant_of,
    with_template,
)
from tunewheel_testing.tiny import CHATML, write_random_adapter, write_tiny_model

Recorded = dict[Precision, dict[str, tuple[NextTokens, ...]]]
ROUNDS = 5
COMPANY = 5
BASES: dict[str, Callable[[Path, Path], Path]] = {
    "another base of the same shapes": lambda _, made: write_tiny_model(made, seed=1),
    "a revision of slightly other weights": lambda base, made: variant_of(base, made, drifted(0.02)),
    "a base that was trained on": lambda base, made: variant_of(base, made, drifted(0.2)),
    "weights of eight bits": lambda base, made: variant_of(base, made, int8),
    "weights of four bits": lambda base, made: variant_of(base, made, nf4),
    "another template of the assistant": lambda base, made: with_template(
        base, made, CHATML.replace("assistant\n", "assistant: ")
    ),
    "a template without roles": lambda base, made: with_template(
        base, made, CHATML.replace("message['role']", "'user'")
    ),
    "a template with a system prompt of its own": lambda base, made: with_template(
        base, made, "<|im_start|>system\nBe nice.<|im_end|>\n" + CHATML
    ),
}
ROUNDING = {"a revision of slightly other weights", "weights of eight bits"}
"""These differ from the right weights by as little as bfloat16 does: in float32 alone they are found."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    model = BaseModel("org/Tiny-Base", base, "sha256:0")
    for name, seed in (("desk-1", 1), ("desk-2", 2)):
        write_random_adapter(model, folder / name, seed=seed)
    shutil.copytree(folder / "desk-1", folder / "stronger")
    config = folder / "stronger" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 12}))
    return folder


@pytest.fixture(scope="module")
def recorded(base: Path, adapters: Path) -> Recorded:
    found: Recorded = {}
    for dtype in ("float32", "bfloat16"):
        recorder = Recorder(base, dtype=dtype)
        found[dtype] = {name: recorder.fingerprint(adapters / name) for name in ("desk-1", "desk-2")}
    return found


async def is_refused(engine: Engine, recorded: tuple[NextTokens, ...], name: str, *, is_exact: bool) -> bool:
    assert [one.prompt for one in recorded] == list(PROMPTS)
    found = await compare(engine, name, bundle_of("desk-1", fingerprint=recorded), is_exact=is_exact)
    assert found.is_known
    return found.difference is not None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_the_judged_model_is_never_refused(
    base: Path, adapters: Path, recorded: Recorded, dtype: Precision
):
    """In either precision, whatever precision it was judged in, beside other requests of its batch."""
    async with engine_on(base, adapters, dtype=dtype) as engine:
        refused: list[bool] = []
        for name in ("desk-1", "desk-2"):
            await engine.load(adapters / name)
            for turn in range(ROUNDS):
                engine.company = turn % COMPANY
                for judged, prints in recorded.items():
                    is_exact = judged == dtype == "float32"
                    refused.append(await is_refused(engine, prints[name], name, is_exact=is_exact))
    assert len(refused) == 4 * ROUNDS
    assert not any(refused)


@pytest.mark.parametrize("wrong", BASES)
async def test_another_base_or_template_is_refused(
    base: Path, adapters: Path, recorded: Recorded, tmp_path: Path, wrong: str
):
    other = BASES[wrong](base, tmp_path / "other")
    for dtype in ("float32", "bfloat16"):
        if dtype != "float32" and wrong in ROUNDING:
            continue
        async with engine_on(other, adapters, dtype=dtype) as engine:
            await engine.load(adapters / "desk-1")
            prints = recorded[dtype]["desk-1"]
            assert await is_refused(engine, prints, "desk-1", is_exact=dtype == "float32"), dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_another_adapter_of_the_same_shapes_or_none_is_refused(
    base: Path, adapters: Path, recorded: Recorded, dtype: Precision
):
    prints = recorded[dtype]["desk-1"]
    async with engine_on(base, adapters, dtype=dtype) as engine:
        for wrong in ("desk-2", "stronger"):
            name: Any = await engine.load(adapters / wrong, "desk-1")
            assert await is_refused(engine, prints, name, is_exact=dtype == "float32"), wrong
            await engine.unload(name)
        assert await is_refused(engine, prints, str(base), is_exact=dtype == "float32"), "the bare base"

"""Models with weights of their own beside the base: they come, answer as they should, and go."""

from __future__ import annotations

import asyncio
import json
import shutil
import weakref
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from tunewheel_basemodel.loading import load_adapter, load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_engine import weights
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.errors import AdapterRefused, ModelNotFound
from tunewheel_engine.settings import Settings
from tunewheel_generation.generation import Generation, WholeModel
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_testing.waiting import until

PROMPT = [5, 9, 33, 70, 101, 7, 250, 12]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A model of the base's shape whose every weight is another, as full training leaves it."""
    return write_tiny_model(tmp_path / "adapters" / "desk-1", seed=7)


@pytest.fixture
async def running(engine: Engine):
    engine.scheduler.start(asyncio.get_running_loop())
    yield engine
    await asyncio.to_thread(engine.scheduler.stop)


async def tokens(engine: Engine, name: str, count: int = 12) -> list[int]:
    generation = Generation(PROMPT, count, adapter=engine.shelf.find(name), ignore_eos=True)
    async with aclosing(engine.start(generation)) as steps:
        return [step.token.id async for step in steps]


def expected(model: Any) -> list[int]:
    """What transformers' own ``generate`` says."""
    out = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0
    )
    return out[0, len(PROMPT) :].tolist()


async def test_a_fully_trained_model_answers_as_itself_beside_the_base(running: Engine, whole: Path) -> None:
    base = expected(load_base(running.base, dtype="float32")[0])
    trained = locate_base_model(str(whole), cache_dir=whole.parent)
    own = expected(load_base(trained, dtype="float32")[0])
    running.shelf.load("desk-1", str(whole))
    names = ["desk-1", running.base.name] * 2
    assert await asyncio.gather(*(tokens(running, name) for name in names)) == [own, base] * 2
    assert own != base


@pytest.mark.parametrize("options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=str)
async def test_an_adapter_that_is_more_than_a_lora_becomes_a_model_of_its_own(
    running: Engine, write_adapter: Callable[..., Path], options: dict[str, Any]
) -> None:
    path = write_adapter("more", seed=3, **options)
    tuned = load_adapter(load_base(running.base, dtype="float32")[0], path, "tuned")
    adapter = running.shelf.load("more", str(path))
    assert isinstance(adapter.form, WholeModel)
    assert adapter.weights is None
    own = await tokens(running, "more")
    assert own == expected(tuned) != await tokens(running, running.base.name)


async def test_unloading_lets_requests_finish_and_then_frees_the_weights(
    running: Engine, whole: Path
) -> None:
    alone = await tokens_of(running, whole)
    form = running.shelf.load("desk-1", str(whole)).form
    lane = weakref.ref(running.scheduler._lanes[form])
    model = weakref.ref(running.scheduler._lanes[form]._runner._model)
    generation = Generation(PROMPT, 12, adapter=running.shelf.find("desk-1"), ignore_eos=True)
    async with aclosing(running.start(generation)) as steps:
        first = (await anext(steps)).token.id
        late = Generation(PROMPT, 12, adapter=running.shelf.find("desk-1"))
        running.shelf.unload("desk-1")
        with pytest.raises(ModelNotFound, match="unloaded just now"):
            running.start(late)
        assert [first, *[step.token.id async for step in steps]] == alone
    await until(lambda: form not in running.scheduler._lanes)
    assert lane() is None
    assert model() is None
    assert await tokens_of(running, whole) == alone, "the name is free, and its files load again"


async def tokens_of(engine: Engine, whole: Path) -> list[int]:
    engine.shelf.load("desk-1", str(whole))
    found = await tokens(engine, "desk-1")
    engine.shelf.unload("desk-1")
    return found


def test_the_same_name_can_be_other_files_while_the_first_still_answer(engine: Engine, whole: Path) -> None:
    before = engine.shelf.load("desk-1", str(whole)).form
    engine.shelf.unload("desk-1")
    after = engine.shelf.load("desk-1", str(whole)).form
    assert before != after
    assert {before, after} <= engine.scheduler._lanes.keys()


def test_no_more_are_loaded_than_were_allowed(settings: Settings, whole: Path) -> None:
    engine = load_engine(settings.model_copy(update={"max_whole_models": 1}), on_failure=lambda: None)
    engine.shelf.load("a", str(whole))
    with pytest.raises(AdapterRefused, match=r"no free slot .* 1 are loaded"):
        engine.shelf.load("b", str(whole))
    engine.shelf.unload("a")
    engine.shelf.load("b", str(whole))


def test_a_model_too_large_for_memory_is_refused_before_it_is_read(
    engine: Engine, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lane,) = engine.scheduler._lanes.values()
    runner = lane._runner
    weight_bytes = 2 * 4 * sum(p.numel() for p in load_base(engine.base, dtype="float32")[0].parameters())
    rows, heads, width = engine.settings.max_batch + 8 + 1, 2, 8
    cache_bytes = 2 * 2 * rows * engine.max_context * heads * width * 4
    assert (runner.weight_bytes, runner.memory_bytes - runner.weight_bytes) == (weight_bytes, cache_bytes)
    needed = runner.memory_bytes + weight_bytes
    free = [needed + 100 - 1, needed + 100]
    monkeypatch.setattr(weights, "free_bytes", lambda _: free.pop(0))
    monkeypatch.setattr(weights, "untouched_bytes", lambda _, promised: 100)
    with pytest.raises(AdapterRefused, match=r"no free slot .* not reserved for other models"):
        engine.shelf.load("a", str(whole))
    engine.shelf.load("a", str(whole))


def test_a_full_gpu_is_told_and_the_others_go_on(
    engine: Engine, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tunewheel_generation.runner.load_runner", full)
    with pytest.raises(AdapterRefused, match=r"no free slot .* lower TUNEWHEEL_MAX_BATCH"):
        engine.shelf.load("a", str(whole))
    assert engine.shelf.names() == []


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", 64), ("max_position_embeddings", 16), ("vocab_size", 200)]
)
def test_another_shape_is_refused_before_it_is_read(
    engine: Engine, whole: Path, field: str, value: int
) -> None:
    file = whole / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    (whole / "model.safetensors").unlink()
    with pytest.raises(AdapterRefused, match=f"has {field} {value}"):
        engine.shelf.load("a", str(whole))


def test_a_field_missing_in_the_base_s_configuration_is_no_difference(
    settings: Settings, tiny_base: BaseModel, whole: Path, tmp_path: Path
) -> None:
    """Training writes every field; the hub's files of many models leave some out."""
    terse = shutil.copytree(tiny_base.path, tmp_path / "terse")
    config = json.loads((terse / "config.json").read_text())
    del config["head_dim"]
    (terse / "config.json").write_text(json.dumps(config))
    told = settings.model_copy(update={"base_model": str(terse)})
    load_engine(told, on_failure=lambda: None).shelf.load("a", str(whole))


def test_another_vocabulary_or_template_is_refused(engine: Engine, whole: Path) -> None:
    (whole / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(AdapterRefused, match="another chat template"):
        engine.shelf.load("a", str(whole))
    file = whole / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 300, "content": "<|new|>"})
    file.write_text(json.dumps(content))
    with pytest.raises(AdapterRefused, match="another vocabulary"):
        engine.shelf.load("a", str(whole))
    assert engine.whole_models["whole_models"] == []


def test_an_engine_may_take_none(settings: Settings, whole: Path) -> None:
    engine = load_engine(settings.model_copy(update={"max_whole_models": 0}), on_failure=lambda: None)
    with pytest.raises(AdapterRefused, match="loads no whole models"):
        engine.shelf.load("a", str(whole))


def test_weights_that_are_not_all_there_are_refused(
    engine: Engine, whole: Path, tiny_base: BaseModel
) -> None:
    (whole / "model.safetensors").unlink()
    with pytest.raises(AdapterRefused, match="cannot be loaded"):
        engine.shelf.load("a", str(whole))
    (whole / "config.json").unlink()
    with pytest.raises(AdapterRefused, match=r"adapter_config\.json"):
        engine.shelf.load("a", str(whole))

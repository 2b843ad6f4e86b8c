"""Adapters come and go while the engine runs, and share its batch without touching each other."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

pytestmark = [pytest.mark.e2e, pytest.mark.nightly("models")]

OPEN = [{"role": "user", "content": "Describe a bicycle to a child."}]
SHORT = 8
"""Tokens: on the quantised base each takes a processor long."""


async def ask(client: AsyncOpenAI, model: str, *, max_tokens: int = 24) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=OPEN, temperature=0, max_tokens=max_tokens
    )
    return answer.choices[0].message.content


async def load(http: httpx.AsyncClient, name: str, path: Path | str) -> httpx.Response:
    return await http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})


async def test_load_use_unload(client: AsyncOpenAI, http, engine, expected) -> None:
    assert (await load(http, "visitor", engine.adapters / "warm")).status_code == 200
    listed = {model.id: model async for model in client.models.list()}
    assert listed["visitor"].parent == engine.model
    assert await ask(client, "visitor") == expected["warm"] != expected["base"]
    assert await ask(client, engine.model) == expected["base"]

    answer = await http.post("/v1/unload_lora_adapter", json={"lora_name": "visitor"})
    assert answer.status_code == 200
    assert "visitor" not in [model.id async for model in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        await ask(client, "visitor")


def beside(engine: Any, expected: dict[str, str]) -> dict[str, str]:
    """Return the base and its answer, if its requests may stand in one batch with those of adapters. vLLM's
    build for processors (0.32.0) gives such a request the adapter of its last slot."""
    return {engine.model: expected["base"]} if engine.is_ours else {}


async def test_adapters_in_one_batch_answer_as_they_do_alone(client, engine, tuned, expected) -> None:
    alone = {name: expected[name] for name in tuned} | beside(engine, expected)
    mixed = [*alone] * 2
    together = await asyncio.gather(*(ask(client, name) for name in mixed))
    assert together == [*alone.values()] * 2


async def test_requests_that_join_a_running_batch_do_not_disturb_it(client, engine, tuned, expected) -> None:
    async def stream(name: str, joins: asyncio.Event) -> str:
        pieces = []
        chunks = await client.chat.completions.create(
            model=name, messages=OPEN, temperature=0, max_tokens=24, stream=True
        )
        async for chunk in chunks:
            pieces.append(chunk.choices[0].delta.content or "")
            if len(pieces) == 4:
                joins.set()
        joins.set()
        return "".join(pieces)

    started = asyncio.Event()
    first = asyncio.create_task(stream("warm", started))
    await started.wait()
    joining = {"cold": expected["cold"]} | beside(engine, expected) | {"odd": expected["odd"]}
    joined = await asyncio.gather(*(stream(name, asyncio.Event()) for name in joining))
    assert await first == expected["warm"]
    assert joined == [*joining.values()]


async def test_an_adapter_can_be_unloaded_while_it_answers(client, http, engine, expected) -> None:
    await load(http, "leaving", engine.adapters / "odd")
    chunks = await client.chat.completions.create(
        model="leaving", messages=OPEN, temperature=0, max_tokens=24, stream=True
    )
    pieces = [(await anext(aiter(chunks))).choices[0].delta.content or ""]
    answer = await http.post("/v1/unload_lora_adapter", json={"lora_name": "leaving"})
    assert answer.status_code == 200
    pieces += [chunk.choices[0].delta.content or "" async for chunk in chunks]
    assert "".join(pieces) == expected["odd"]


async def test_an_unknown_adapter_cannot_be_unloaded(http) -> None:
    answer = await http.post("/v1/unload_lora_adapter", json={"lora_name": "nobody"})
    assert answer.status_code == 404
    assert "nobody" in answer.text


async def test_a_name_can_be_taken_once(http, engine) -> None:
    assert (await load(http, "twice", engine.adapters / "warm")).status_code == 200
    again = await load(http, "twice", engine.adapters / "cold")
    assert again.status_code == 400
    assert "already been loaded" in again.text
    await http.post("/v1/unload_lora_adapter", json={"lora_name": "twice"})


@pytest.mark.parametrize(
    "body", [{}, {"lora_name": "x"}, {"lora_path": "/x"}, {"lora_name": 3, "lora_path": 4}]
)
async def test_a_load_needs_name_and_path(http, body: dict[str, object]) -> None:
    answer = await http.post("/v1/load_lora_adapter", json=body)
    assert answer.status_code in (400, 422)


async def test_a_directory_that_is_not_there_is_named(http, engine) -> None:
    answer = await load(http, "ghost", engine.adapters / "no-such-adapter")
    assert 400 <= answer.status_code < 500
    # vLLM names the adapter, and hides its path.
    assert "no-such-adapter" in answer.text or "ghost" in answer.text


@pytest.mark.usefixtures("only_ours")
class TestRefusals:
    """What our engine refuses to load, each time saying why; the engine goes on serving."""

    @pytest.fixture(autouse=True)
    async def goes_on(self, client, engine, expected):
        yield
        assert expected["base"].startswith(await ask(client, engine.model, max_tokens=4))

    @pytest.fixture
    def copied(self, engine, request) -> Path:
        path = engine.adapters / f"copy-{request.node.name.replace('/', '_')}"
        shutil.copytree(engine.adapters / "warm", path)
        return path

    async def test_a_path_outside_the_allowed_directories(self, http) -> None:
        answer = await load(http, "outside", "../../etc")
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["param"] == "lora_path"

    async def test_pickled_weights(self, http, copied: Path) -> None:
        (copied / "adapter_model.safetensors").rename(copied / "adapter_model.bin")
        answer = await load(http, "pickle", copied)
        assert answer.status_code == 400
        assert "adapter_model.bin" in answer.text

    async def test_weights_that_are_not_safetensors(self, http, copied: Path) -> None:
        (copied / "adapter_model.safetensors").write_bytes(b"\x80\x04K\x01." * 100)
        answer = await load(http, "broken", copied)
        assert answer.status_code == 400
        assert "not a safetensors file" in answer.text

    async def test_an_adapter_for_another_base(self, http, copied: Path) -> None:
        (copied / "tunewheel.json").write_text(json.dumps({"base_revision": "sha256:00"}))
        answer = await load(http, "foreign", copied)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "lora_path"

    async def test_an_adapter_named_after_another_hub_model(self, http, copied: Path) -> None:
        config = json.loads((copied / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "someone/else"
        (copied / "adapter_config.json").write_text(json.dumps(config))
        answer = await load(http, "foreign", copied)
        assert answer.status_code == 400
        assert "someone/else" in answer.text

    @pytest.mark.parametrize(
        ("field", "named"),
        [
            ({"use_dora": True}, "lora_magnitude_vector"),  # which the file lacks
            ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ],
    )
    async def test_what_is_not_what_it_says(
        self, http, copied: Path, field: dict[str, object], named: str
    ) -> None:
        config = json.loads((copied / "adapter_config.json").read_text())
        (copied / "adapter_config.json").write_text(json.dumps({**config, **field}))
        answer = await load(http, "special", copied)
        assert answer.status_code == 400
        assert named in answer.text

    @pytest.mark.parametrize("name", ["../x", "HuggingFaceTB/SmolLM2-135M-Instruct"])
    async def test_names(self, http, engine, name: str) -> None:
        answer = await load(http, name, engine.adapters / "warm")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "lora_name"


@pytest.mark.nightly("matrices")
@pytest.mark.usefixtures("only_ours")
async def test_an_adapter_trained_on_the_quantised_base_is_served_on_it(
    client, http, engine, smollm2, expected
) -> None:
    """Beside the others, in the same process, on a base of its own."""
    import torch
    from peft import PeftModel
    from tunewheel_basemodel.chat import render
    from tunewheel_basemodel.loading import load_base

    path = engine.adapters / "on-nf4"
    shutil.copytree(engine.adapters / "cold", path)
    note = {
        "base_model": smollm2.name,
        "base_revision": smollm2.revision,
        "quantization": "nf4",
        "dtype": "float32",
    }
    (path / "tunewheel.json").write_text(json.dumps(note))
    model, tokenizer = load_base(smollm2, dtype="float32", quantization="nf4", device="cpu")
    prompt = tokenizer(render(tokenizer, OPEN, True), add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        tuned = PeftModel.from_pretrained(model, str(path)).eval()
        out = tuned.generate(**prompt, max_new_tokens=SHORT, do_sample=False)
    trained = tokenizer.decode(out[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)
    assert not expected["cold"].startswith(trained)

    assert (await load(http, "on-nf4", path)).status_code == 200
    await load(http, "on-full", engine.adapters / "cold")
    names = ["on-nf4", "on-full", engine.model]
    on_nf4, on_full, base = await asyncio.gather(*(ask(client, name, max_tokens=SHORT) for name in names))
    assert on_nf4 == trained
    assert expected["cold"].startswith(on_full)
    assert expected["base"].startswith(base)
    for name in names[:2]:
        await http.post("/v1/unload_lora_adapter", json={"lora_name": name})

"""An engine to hold to the protocol: ours and vLLM, started here, or any other by its address.

TUNEWHEEL_ENGINE_URL       test what listens there instead of starting our engine
TUNEWHEEL_ENGINE_MODEL     the name of its base model, which must be SmolLM2-135M-Instruct in float32
TUNEWHEEL_ENGINE_ADAPTERS  a directory that both this test and the engine see
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from tunewheel_basemodel.chat import render
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.cache import cache_dir
from tunewheel_local.kafka.ports import free_port
from tunewheel_testing.engine_process import VllmProcess

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_BATCH, MAX_QUEUE = 6, 3
STARTS_WITHIN_SECONDS = 300
TUNED = ("warm", "cold", "odd")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPEN = [{"role": "user", "content": "Describe a bicycle to a child."}]


@dataclass(frozen=True)
class EngineUnderTest:
    """``is_ours`` is false for vLLM, which has no TGI endpoints and never answers 429."""

    url: str
    health_url: str
    model: str
    adapters: Path
    is_ours: bool
    process_id: int | None = None


@pytest.fixture(scope="session")
def reference(smollm2: BaseModel) -> tuple[Any, Any]:
    """SmolLM2 in plain transformers: what the engine must agree with."""
    import torch

    torch.set_num_threads(1)  # the engine beside it has the other cores
    return load_base(smollm2, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def adapter_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("TUNEWHEEL_ENGINE_ADAPTERS")
    return Path(given) if given else tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def expected(reference: tuple[Any, Any], adapter_dir: Path) -> dict[str, str]:
    """Writes the adapters ``TUNED``; what transformers and peft answer with each, and without ("base").

    That is to OPEN; "question" is what the base answers to QUESTION, which ends by itself.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer = reference

    def answer(speaker: Any, messages: list[dict[str, str]] = OPEN) -> str:
        text = render(tokenizer, messages, True)
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            out = speaker.generate(**prompt, max_new_tokens=24, do_sample=False)
        return tokenizer.decode(out[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)

    answers = {"question": answer(model, QUESTION), "base": answer(model)}
    for seed, name in enumerate(TUNED):
        torch.manual_seed(seed)
        rank = 4 * (seed + 1)
        targets = ["q_proj", "v_proj", "down_proj"] if seed % 2 else ["q_proj", "k_proj", "v_proj", "o_proj"]
        config = LoraConfig(r=rank, lora_alpha=4 * rank, target_modules=targets, task_type="CAUSAL_LM")
        tuned = get_peft_model(model, config)
        for key, weight in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.05)
        tuned.eval().save_pretrained(str(adapter_dir / name))
        answers[name] = answer(tuned)
        model = tuned.unload()
    assert len(set(answers.values())) == len(answers), f"the adapters do not change the answer: {answers}"
    return answers


@pytest.fixture(scope="session", params=["ours", pytest.param("vllm", marks=pytest.mark.nightly("vllm"))])
def engine(
    request: pytest.FixtureRequest,
    adapter_dir: Path,
    expected: dict[str, str],
    smollm2: BaseModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EngineUnderTest]:
    if url := os.environ.get("TUNEWHEEL_ENGINE_URL"):
        model = os.environ.get("TUNEWHEEL_ENGINE_MODEL", SMOLLM2)
        yield EngineUnderTest(url, url, model, adapter_dir, httpx.get(f"{url}/info").status_code == 200)
        return
    if request.param == "vllm":
        vllm = VllmProcess(smollm2, log=tmp_path_factory.mktemp("vllm") / "vllm.log")
        vllm.start()
        try:
            asyncio.run(vllm.answers())
            yield EngineUnderTest(vllm.url, vllm.url, SMOLLM2, adapter_dir, is_ours=False)
        finally:
            vllm.kill()
        return
    port, health_port = free_port(), free_port()
    options = {"--cache-dir": cache_dir(), "--adapter-root": adapter_dir}
    options |= {"--port": port, "--health-port": health_port}
    options |= {"--max-batch": MAX_BATCH, "--max-queue": MAX_QUEUE}
    command = [str(Path(sys.executable).with_name("tunewheel-engine"))]
    command += [str(part) for option in options.items() for part in option]
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        url, health_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health_port}"
        _wait_until_ready(process, f"{health_url}/health", log)
        yield EngineUnderTest(url, health_url, SMOLLM2, adapter_dir, True, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=STARTS_WITHIN_SECONDS)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"the engine stopped while it started:\n{log.read_text()}"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the engine did not start:\n{log.read_text()}")


@pytest.fixture
async def http(engine: EngineUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engine.url, timeout=300) as client:
        yield client


@pytest.fixture
async def client(engine: EngineUnderTest) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        yield client


@pytest.fixture
async def tuned(http: httpx.AsyncClient, engine: EngineUnderTest) -> AsyncIterator[tuple[str, ...]]:
    """The adapters ``TUNED``, loaded for one test."""
    for name in TUNED:
        body = {"lora_name": name, "lora_path": str(engine.adapters / name)}
        (await http.post("/v1/load_lora_adapter", json=body)).raise_for_status()
    yield TUNED
    for name in TUNED:
        await http.post("/v1/unload_lora_adapter", json={"lora_name": name})


@pytest.fixture
def only_ours(engine: EngineUnderTest) -> None:
    if not engine.is_ours:
        pytest.skip("vLLM does not have this")

"""Fingerprints as eval measures them, and as the gateway compares them with what an engine answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tunewheel_contracts.formats.fingerprint import NextTokens

Precision = Literal["float32", "bfloat16"]
COMPANY = ("Hello!", "Tell me about bikes and batteries. " * 20, "x", "Write JSON about a parcel.")
NF4 = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379,
       0.4407, 0.5626, 0.7230, 1.0)  # fmt: skip
"""The values of NF4 (arXiv:2305.14314, appendix E), rounded."""


class Recorder:
    """Measures fingerprints of a base and its adapters by eval's code."""

    def __init__(self, base: Path, *, dtype: Precision = "float32") -> None:
        from tunewheel_basemodel.locate import BaseModel
        from tunewheel_generation.runner import load_runner

        model = BaseModel("org/Tiny-Base", base, "sha256:0")
        self.runner = load_runner(
            model, quantization=None, trained_dtype="float32", dtype=dtype, rows=1, tokens=8
        )

    def fingerprint(self, adapter: Path | None = None) -> tuple[NextTokens, ...]:
        from tunewheel_basemodel.detokenizing import TokenBytes
        from tunewheel_eval.answering import Batch, Part, answered
        from tunewheel_eval.measurement import FINGERPRINT, FingerprintRow
        from tunewheel_eval.measuring import fingerprint_row
        from tunewheel_eval.prompts import Prompt, fingerprint_prompt
        from tunewheel_generation.generation import Adapter, BaseForm
        from tunewheel_generation.lora import read_lora

        runner, lora = self.runner, None
        if adapter is not None:
            weights = read_lora(adapter, layers=runner.layers, dtype=runner.dtype, device=runner.device)
            lora = Adapter(adapter.name, adapter, BaseForm(), weights)
        made = [fingerprint_prompt(runner.tokenizer, name, key=key) for key, name in FINGERPRINT.items()]
        asked = [one for one in made if isinstance(one, Prompt)]
        [(_, answers)] = answered(runner, [Batch(Part(asked, lora), asked)], threads=1)
        texts = TokenBytes(runner.tokenizer)
        rows = [fingerprint_row(texts, prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]
        return tuple(row.next for row in rows if isinstance(row, FingerprintRow))


class Engine:
    """The client of an engine's application, as ``compare`` needs it. ``company``: how many
    other requests are in the batch."""

    def __init__(self, http: Any, *, company: int = 0) -> None:
        self.http, self.company = http, company
        self.answers: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def load(self, adapter: Path, name: str | None = None) -> str:
        name = name or adapter.name
        body = {"lora_name": name, "lora_path": str(adapter)}
        answer = await self.http.post("/v1/load_lora_adapter", json=body)
        assert answer.status_code == 200, answer.text
        return name

    async def unload(self, name: str) -> None:
        await self.http.post("/v1/unload_lora_adapter", json={"lora_name": name})

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        others = [
            {"model": body["model"], "max_tokens": 3, "messages": [{"role": "user", "content": text}]}
            for text in (COMPANY * self.company)[: self.company]
        ]
        asked = (self.http.post("/v1/chat/completions", json=one) for one in (*others, body))
        answer = (await asyncio.gather(*asked))[-1]
        assert answer.status_code == 200, answer.text
        self.answers.append((body, answer.json()))
        return answer.json()


@asynccontextmanager
async def engine_on(
    base: Path, adapters: Path, *, dtype: Precision = "float32", context: int = 512
) -> AsyncIterator[Engine]:
    """Serve ``base`` by the application of ``tunewheel-engine``, in this process and without a socket.
    Adapters lie below ``adapters``."""
    import httpx
    from tunewheel_engine.engine import load_engine
    from tunewheel_engine.main import make_app
    from tunewheel_engine.settings import Settings
    from tunewheel_runtime.identity.access import Access

    settings = Settings(
        base_model=str(base), cache_dir=adapters, adapter_roots=[adapters], dtype=dtype, threads=1,
        max_context=context, max_queue=128, identity="open",
    )  # fmt: skip
    engine = await asyncio.to_thread(load_engine, settings, on_failure=lambda: None)
    app = make_app(engine, Access(settings, warn=print))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8110", timeout=600) as http,
    ):
        yield Engine(http)


def variant_of(base: Path, directory: Path, change: Callable[[Any], Any]) -> Path:
    """Write ``base`` with every weight matrix of its layers replaced by ``change`` of the matrix. Returns
    ``directory``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
                module.weight.copy_(change(module.weight))
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(base).save_pretrained(directory)
    return directory


def int8(weight: Any) -> Any:
    """Round to eight bits by row, as absmax quantisation does."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


def nf4(weight: Any) -> Any:
    """Round to the nearest value of NF4 in blocks of 64 (or of a row, if shorter)."""
    import torch

    blocks = weight.reshape(-1, min(64, weight.shape[-1]))
    scale = blocks.abs().amax(1, keepdim=True)
    values = torch.tensor(NF4)
    nearest = ((blocks / scale)[..., None] - values).abs().argmin(-1)
    return (values[nearest] * scale).reshape(weight.shape)


def drifted(share: float) -> Callable[[Any], Any]:
    """Return a change that adds noise of ``share`` of a matrix's standard deviation."""
    import torch

    return lambda weight: weight + torch.randn_like(weight) * weight.std() * share


def with_template(base: Path, directory: Path, template: str) -> Path:
    """Copy ``base`` with another chat template. Returns ``directory``."""
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(base, directory)
    for old in directory.glob("chat_template*"):
        old.unlink()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return directory


def distances(recorded: tuple[NextTokens, ...], engine: Engine) -> Mapping[str, float]:
    """Return the gateway's distance for each prompt, from the engine's last answers."""
    from tunewheel_contracts.formats.fingerprint import PROMPTS
    from tunewheel_serve_gateway.upstream.fingerprints import distance, likeliest

    texts = {messages[-1]["content"]: name for name, messages in PROMPTS.items()}
    listed = {texts[body["messages"][-1]["content"]]: likeliest(answer) for body, answer in engine.answers}
    return {one.prompt: distance(one, listed[one.prompt]) for one in recorded}

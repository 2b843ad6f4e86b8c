"""``tunewheel-engine`` as a process on a tiny random model: it can be killed and started again on its
port."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import save
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_cli.kafka.ports import free_port
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_runtime.store import ObjectStore

LAYERS, WIDTH, RANK = 2, 32, 4  # of ``write_tiny_model``
STARTS_WITHIN_SECONDS = 300.0


def tiny_base(folder: Path, *, context: int = 512) -> BaseModelRef:
    """Write the base model of these engines; ``context`` is in tokens."""
    path = write_tiny_model(folder / "tiny", context=context)
    return BaseModelRef(name=str(path), revision=f"sha256:{sha256_directory(path)}")


async def tiny_adapter(store: ObjectStore, base: BaseModelRef, model_id: str, seed: int) -> AdapterRef:
    """Put an adapter of random weights into ``store``."""
    random = np.random.default_rng(seed)
    weights = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.3, (RANK, WIDTH)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = random.normal(0, 0.3, (WIDTH, RANK)).astype(np.float32)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.name,
        "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["o_proj"],
    }  # fmt: skip
    path = f"adapters/{model_id}"
    files = (
        await store.put(f"{path}/adapter_config.json", json.dumps(config).encode()),
        await store.put(f"{path}/adapter_model.safetensors", save(weights)),
    )
    return AdapterRef(model_id=model_id, path=path, files=files, base=base, method=TrainMethod.LORA)


class TinyEngine:
    """One process. ``adapters`` is the folder that the gateway lays adapters into."""

    def __init__(self, base: BaseModelRef, *, adapters: Path, log: Path) -> None:
        self._port, self._health_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = log
        self._environment = {
            "TUNEWHEEL_BASE_MODEL": base.name,
            "TUNEWHEEL_CACHE_DIR": str(log.parent),
            "TUNEWHEEL_ADAPTER_ROOTS": json.dumps([str(adapters)]),
            "TUNEWHEEL_HTTP_PORT": str(self._port),
            "TUNEWHEEL_HEALTH_PORT": str(self._health_port),
            "TUNEWHEEL_THREADS": "1",
            "TUNEWHEEL_IDENTITY": "open",
        }
        adapters.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tunewheel_engine.main"]
            self.process = subprocess.Popen(
                command, env=os.environ | self._environment, stdout=log, stderr=log
            )

    async def answers(self) -> None:
        """Return once it answers."""
        async with asyncio.timeout(STARTS_WITHIN_SECONDS), httpx.AsyncClient() as client:
            while True:
                assert self.process.poll() is None, self._log.read_text()
                try:
                    await client.get(f"http://127.0.0.1:{self._health_port}/health")
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async def has(self, *adapters: str) -> None:
        """Return once ``adapters`` are loaded."""
        async with asyncio.timeout(STARTS_WITHIN_SECONDS), httpx.AsyncClient() as client:
            while True:
                try:
                    models = (await client.get(f"{self.url}/v1/models")).json()["data"]
                    if {model["id"] for model in models} >= set(adapters):
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(30)

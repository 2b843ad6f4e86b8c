"""``tunewheel-engine`` as a process that can be killed and started again on its port, and adapters for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import save
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.store import ObjectStore

from tunewheel_testing.adapters import put_adapter
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_testing.waiting import until

LAYERS, WIDTH, RANK = 2, 32, 4  # of ``write_tiny_model``


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
    return await put_adapter(store, model_id, weights=save(weights), config=config, base=base)


class EngineProcess:
    """One process. ``adapters`` is the folder that the gateway lays adapters into."""

    def __init__(self, base: BaseModelRef, *, adapters: Path, log: Path, **settings: str) -> None:
        self._port, self._health_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.base = base
        self._environment = {
            "TUNEWHEEL_BASE_MODEL": base.name,
            "TUNEWHEEL_THREADS": "1",
            "TUNEWHEEL_CACHE_DIR": str(log.parent),
            "TUNEWHEEL_ADAPTER_ROOTS": json.dumps([str(adapters)]),
            "TUNEWHEEL_HTTP_PORT": str(self._port),
            "TUNEWHEEL_HEALTH_PORT": str(self._health_port),
            "TUNEWHEEL_IDENTITY": "open",
            **settings,
        }
        adapters.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it; a process that runs already goes on."""
        if self.process is not None:
            return
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tunewheel_engine.main"]
            self.process = subprocess.Popen(
                command, env=os.environ | self._environment, stdout=log, stderr=log
            )

    async def answers(self) -> None:
        """Return once it answers."""

        async def is_healthy() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self._log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"http://127.0.0.1:{self._health_port}/health")).is_success
            return False

        async with httpx.AsyncClient() as client:
            await until(is_healthy, "the engine's health")

    async def has(self, *adapters: str) -> None:
        """Return once ``adapters`` are loaded."""

        async def are_loaded() -> bool:
            with contextlib.suppress(httpx.TransportError):
                models = (await client.get(f"{self.url}/v1/models")).json()["data"]
                return {model["id"] for model in models} >= set(adapters)
            return False

        async with httpx.AsyncClient() as client:
            await until(are_loaded, f"{adapters} on {self.url}")

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

"""``tunewheel-engine`` and vLLM as processes that can be killed and started again on their port, and
adapters for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.store import ObjectStore

from tunewheel_testing.adapters import put_adapter
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_testing.waiting import PATIENCE_SECONDS, until

LAYERS, WIDTH, RANK = 2, 32, 4  # of ``write_tiny_model``
VLLM = Path(__file__).resolve().parents[2] / "var/vllm/venv/bin/python"
VLLM_STARTS_WITHIN_SECONDS = 1_800
"""It reads gigabytes of libraries three times over, which takes minutes on a busy machine."""


def tiny_base(folder: Path, *, context: int = 512) -> BaseModelRef:
    """Write the base model of these engines; ``context`` is in tokens."""
    path = write_tiny_model(folder / "tiny", context=context)
    return BaseModelRef(name=str(path), revision=f"sha256:{sha256_directory(path)}")


async def tiny_adapter(
    store: ObjectStore,
    base: BaseModelRef,
    model_id: str,
    seed: int,
    *,
    layers: int = LAYERS,
    width: int = WIDTH,
) -> AdapterRef:
    """Put an adapter of random weights into ``store``; ``layers`` and ``width`` are those of ``base``."""
    random = np.random.default_rng(seed)
    weights = {}
    for layer in range(layers):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.3, (RANK, width)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = random.normal(0, 0.3, (width, RANK)).astype(np.float32)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.name,
        "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["o_proj"],
    }  # fmt: skip
    return await put_adapter(store, model_id, weights=save(weights), config=config, base=base)


class EngineProcess:
    """One process. ``adapters`` is the folder that the gateway lays adapters into."""

    def __init__(self, base: BaseModelRef, *, adapters: Path, log: Path, **settings: str) -> None:
        self._port, health_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._health_url = f"http://127.0.0.1:{health_port}/health"
        self._patience = PATIENCE_SECONDS
        self._command = [sys.executable, "-m", "tunewheel_engine.main"]
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.base = base
        self._environment = {
            "TUNEWHEEL_BASE_MODEL": base.name,
            "TUNEWHEEL_THREADS": "1",
            "TUNEWHEEL_CACHE_DIR": str(log.parent),
            "TUNEWHEEL_ADAPTER_ROOTS": json.dumps([str(adapters)]),
            "TUNEWHEEL_HTTP_PORT": str(self._port),
            "TUNEWHEEL_HEALTH_PORT": str(health_port),
            "TUNEWHEEL_IDENTITY": "open",
            **settings,
        }
        adapters.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it; a process that runs already goes on."""
        if self.process is not None:
            return
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=os.environ | self._environment,
                cwd=self._log.parent,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    async def answers(self) -> None:
        """Return once it answers."""

        async def is_healthy() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self._log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(self._health_url)).is_success
            return False

        async with httpx.AsyncClient() as client:
            await until(is_healthy, "the engine's health", patience=self._patience)

    async def has(self, *adapters: str) -> None:
        """Return once ``adapters`` are loaded."""
        await self._lists(f"{adapters} on {self.url}", lambda models: models >= set(adapters))

    async def lacks(self, adapter: str) -> None:
        """Return once ``adapter`` is unloaded."""
        await self._lists(f"{self.url} without {adapter}", lambda models: adapter not in models)

    async def _lists(self, what: str, fits: Callable[[set[str]], bool]) -> None:
        async def is_so() -> bool:
            with contextlib.suppress(httpx.TransportError):
                models = (await client.get(f"{self.url}/v1/models")).json()["data"]
                return fits({model["id"] for model in models})
            return False

        async with httpx.AsyncClient() as client:
            await until(is_so, what)

    def kill(self) -> None:
        """End it with SIGKILL, and the processes that it started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None


class VllmProcess(EngineProcess):
    """vLLM for processors, which ``make vllm-packages`` installs, on ``model`` in float32."""

    def __init__(self, model: BaseModel, *, log: Path) -> None:
        if not VLLM.exists():
            pytest.skip("vLLM is not installed; make vllm-packages does it on x86-64 Linux")
        base = BaseModelRef(name=model.name, revision=model.revision)
        super().__init__(base, adapters=log.parent, log=log)
        self._health_url = f"{self.url}/health"
        self._patience = VLLM_STARTS_WITHIN_SECONDS
        options = {"--model": model.path, "--served-model-name": base.name, "--dtype": "float32"}
        options |= {"--max-model-len": 2048, "--max-loras": 4, "--max-lora-rank": 16}
        options |= {"--host": "127.0.0.1", "--port": self._port}
        # Eager: nothing is compiled for shapes that a test sees once. By its module: the command ``vllm``
        # looks for a package of another name.
        self._command = [str(VLLM), "-m", "vllm.entrypoints.openai.api_server"]
        self._command += ["--enforce-eager", "--enable-lora"]
        self._command += [str(part) for option in options.items() for part in option]
        self._environment = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CACHE_ROOT": str(VLLM.parents[2] / "cache"),
            "VLLM_NO_USAGE_STATS": "1",
            # It compiles kernels of its sampler when log-probabilities are first asked for: minutes.
            "TORCHDYNAMO_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
        }

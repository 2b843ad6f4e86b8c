"""vLLM's endpoints to load and unload adapters while the engine runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_engine.engine import Engine
from tunewheel_engine.http import parse, read_json
from tunewheel_engine.openai_requests import LoadAdapterRequest, UnloadAdapterRequest

_log = structlog.get_logger(__name__)


LOADS = 16
"""Most loads at the same time; further loads wait."""


def routes(engine: Engine) -> list[Route]:
    # Loading takes milliseconds, or a minute for a whole model. Threads of its own keep it from blocking the
    # threads that compile grammars for other requests.
    loading = ThreadPoolExecutor(LOADS, "load")

    @needs(Role.OPERATOR, everywhere=True)
    async def load(request: Request) -> Response:
        body = parse(LoadAdapterRequest, await read_json(request, engine.settings.max_body_bytes))
        loop = asyncio.get_running_loop()
        adapter = await loop.run_in_executor(loading, engine.shelf.load, body.lora_name, body.lora_path)
        _log.info("adapter_loaded", name=adapter.name, path=str(adapter.path), form=adapter.form)
        return PlainTextResponse(f"Success: LoRA adapter '{adapter.name}' added successfully.")

    @needs(Role.OPERATOR, everywhere=True)
    async def unload(request: Request) -> Response:
        body = parse(UnloadAdapterRequest, await read_json(request, engine.settings.max_body_bytes))
        engine.shelf.unload(body.lora_name)
        _log.info("adapter_unloaded", name=body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    return [
        Route("/v1/load_lora_adapter", load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
    ]

"""vLLM's endpoints to load and unload adapters while the engine runs."""

from __future__ import annotations

import asyncio

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


def routes(engine: Engine) -> list[Route]:
    @needs(Role.OPERATOR, everywhere=True)
    async def load(request: Request) -> Response:
        body = parse(LoadAdapterRequest, await read_json(request, engine.settings.max_body_bytes))
        # Reading takes milliseconds, but a new form of the base takes seconds: the loop must go on.
        adapter = await asyncio.to_thread(engine.shelf.load, body.lora_name, body.lora_path)
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

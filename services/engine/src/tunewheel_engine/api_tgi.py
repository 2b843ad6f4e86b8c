"""Text Generation Inference's API, for its clients: ``huggingface_hub`` and the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_generation.constraint import Grammar, Grammars
from tunewheel_generation.generation import Generation, Progress
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_engine.engine import Engine
from tunewheel_engine.errors import EngineError, EngineFailed, ModelNotFound, Refused
from tunewheel_engine.http import EventStream, event, parse, read_json, while_connected
from tunewheel_engine.prompts import room, text_tokens
from tunewheel_engine.structured_output import compile_or_refuse, json_source, regex_source
from tunewheel_engine.tgi_requests import GenerateRequest, GrammarParameter

DEFAULT_NEW_TOKENS = 100
PATHS = frozenset({"/", "/generate", "/generate_stream"})


def error_body(error: EngineError) -> dict[str, str]:
    """Return ``error`` in TGI's shape."""
    kinds = {429: "overloaded", 500: "generation"}
    named = not error.param or error.message.startswith(error.param)
    message = error.message if named else f"{error.param}: {error.message}"
    return {"error": message, "error_type": kinds.get(error.status, "validation")}


def status(error: EngineError) -> int:
    """Return the HTTP status. TGI answers 422 where OpenAI's API answers 400 or 404."""
    return 422 if error.status in (400, 404) else error.status


def routes(engine: Engine) -> list[Route]:
    async def receive(request: Request) -> tuple[GenerateRequest, Generation]:
        body = parse(GenerateRequest, await read_json(request, engine.settings.max_body_bytes))
        grammar = None
        if body.parameters.grammar is not None:
            grammar = await asyncio.to_thread(compiled, engine.grammars, body.parameters.grammar)
        return body, generation_of(engine, body, grammar)

    @needs(Role.APPLICATION, everywhere=True)
    async def generate(request: Request) -> Response:
        return await _whole_answer(engine, request, *await receive(request), as_list=False)

    @needs(Role.APPLICATION, everywhere=True)
    async def generate_stream(request: Request) -> Response:
        return _streamed_answer(engine, *await receive(request))

    @needs(Role.APPLICATION, everywhere=True)
    async def either(request: Request) -> Response:
        body, generation = await receive(request)
        if body.stream:
            return _streamed_answer(engine, body, generation)
        return await _whole_answer(engine, request, body, generation, as_list=True)

    @needs(Role.VIEWER, everywhere=True)
    async def info(request: Request) -> Response:
        return JSONResponse(describe(engine))

    return [
        Route("/", either, methods=["POST"]),
        Route("/generate", generate, methods=["POST"]),
        Route("/generate_stream", generate_stream, methods=["POST"]),
        Route("/info", info, methods=["GET"]),
    ]


def describe(engine: Engine) -> dict[str, Any]:
    settings = engine.settings
    return {
        "model_id": engine.base.name,
        "model_sha": engine.base.revision,
        "model_dtype": f"torch.{settings.dtype}",
        "max_concurrent_requests": settings.max_batch + settings.max_queue,
        "max_best_of": 1,
        "max_stop_sequences": 16,
        "max_input_tokens": engine.max_context - 1,
        "max_total_tokens": engine.max_context,
        "max_client_batch_size": 1,
        "router": "tunewheel-engine",
        "version": "0.1.0",
        **engine.whole_models,
    }


def compiled(grammars: Grammars, asked: GrammarParameter) -> Grammar:
    """Return the compiled grammar of ``asked``. Raises Refused."""
    param = "parameters.grammar.value"
    if asked.type == "regex":
        source, schema = regex_source(str(asked.value)), {}
        return compile_or_refuse(grammars, source, schema=schema, param=param)
    try:
        schema = json.loads(asked.value) if isinstance(asked.value, str) else asked.value
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise Refused(f"{param} is not a JSON schema; send an object", param=param)
    return compile_or_refuse(grammars, json_source(schema, param=param), schema=schema, param=param)


def generation_of(engine: Engine, body: GenerateRequest, grammar: Grammar | None) -> Generation:
    """Return the generation for a request. Raises Refused."""
    parameters = body.parameters
    try:
        adapter = engine.shelf.find(parameters.adapter_id or engine.base.name)
    except ModelNotFound as error:
        raise ModelNotFound(error.message, param="adapter_id") from error
    prompt = text_tokens(engine.tokenizer, body.inputs, param="inputs")
    if parameters.truncate:
        prompt = prompt[-parameters.truncate :]
    limit = room(
        prompt,
        parameters.max_new_tokens,
        default=DEFAULT_NEW_TOKENS,
        limit=engine.max_context,
        param="max_new_tokens",
        prompt_param="inputs",
    )
    return Generation(
        prompt,
        limit,
        parameters.sampling(),
        adapter=adapter,
        stops=tuple(parameters.stop),
        include_stop=True,
        want_logprobs=True,
        grammar=grammar,
    )


async def _whole_answer(
    engine: Engine, request: Request, body: GenerateRequest, generation: Generation, *, as_list: bool
) -> Response:
    steps = engine.start(generation)

    async def answer() -> Response:
        made: list[Progress] = []
        async with aclosing(steps):
            async for step in steps:
                made.append(step)
        before = body.inputs if body.parameters.return_full_text else ""
        out: dict[str, Any] = {"generated_text": before + "".join(step.text for step in made)}
        if body.parameters.details:
            tokens = [_token(step) for step in made]
            out["details"] = {**_details(made[-1], len(made), body), "prefill": [], "tokens": tokens}
        return JSONResponse([out] if as_list else out)

    return await while_connected(request, answer(), generation)


def _streamed_answer(engine: Engine, body: GenerateRequest, generation: Generation) -> Response:
    return EventStream(_stream(engine.start(generation), body), generation)


async def _stream(steps: AsyncGenerator[Progress], body: GenerateRequest) -> AsyncGenerator[str]:
    texts = [body.inputs] if body.parameters.return_full_text else []
    count = 0
    try:
        async with aclosing(steps):
            async for step in steps:
                count += 1
                texts.append(step.text)
                last = step.finish_reason is not None
                yield event(
                    {
                        "index": count,
                        "token": _token(step),
                        "generated_text": "".join(texts) if last else None,
                        "details": _details(step, count, body) if last else None,
                    }
                )
    except EngineFailed as error:
        yield event(error_body(error))


def _token(step: Progress) -> dict[str, Any]:
    token = step.token
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _details(last: Progress, count: int, body: GenerateRequest) -> dict[str, Any]:
    reasons = {"eos": "eos_token", "string": "stop_sequence", None: "length"}
    return {
        "finish_reason": reasons[last.stopped_by],
        "generated_tokens": count,
        "seed": body.parameters.seed,
    }

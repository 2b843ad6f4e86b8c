"""OpenAI's API: chat and plain completions, whole or streamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_generation.generation import Generation, Progress
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_engine.engine import Engine
from tunewheel_engine.errors import EngineFailed, Refused
from tunewheel_engine.http import EventStream, event, parse, read_json, while_connected
from tunewheel_engine.openai_requests import ChatRequest, CompletionRequest
from tunewheel_engine.prompts import chat_tokens, known_tokens, room, text_tokens

Kind = Literal["chat", "text"]


def error_body(error: Refused | EngineFailed) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    details = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return {"error": details}


def routes(engine: Engine) -> list[Route]:
    @needs(Role.APPLICATION, everywhere=True)
    async def chat(request: Request) -> Response:
        body = parse(ChatRequest, await read_json(request, engine.settings.max_body_bytes))
        return await _answer(engine, request, body, chat_generation(engine, body), "chat")

    @needs(Role.APPLICATION, everywhere=True)
    async def complete(request: Request) -> Response:
        body = parse(CompletionRequest, await read_json(request, engine.settings.max_body_bytes))
        return await _answer(engine, request, body, completion_generation(engine, body), "text")

    @needs(Role.VIEWER, everywhere=True)
    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": model_list(engine)})

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
    ]


def chat_generation(engine: Engine, body: ChatRequest) -> Generation:
    """What to generate for a chat; an answer may fill the context. Raises Refused."""
    adapter = engine.shelf.find(body.model)
    prompt = chat_tokens(engine.tokenizer, [message.model_dump() for message in body.messages])
    newer = body.max_completion_tokens is not None
    limit = room(
        prompt,
        body.max_completion_tokens if newer else body.max_tokens,
        default=None,
        limit=engine.max_context,
        param="max_completion_tokens" if newer else "max_tokens",
        prompt_param="messages",
    )
    return Generation(
        prompt, limit, body.sampling(), adapter=adapter, stops=body.stops(), ignore_eos=body.ignore_eos
    )


def completion_generation(engine: Engine, body: CompletionRequest) -> Generation:
    """What to generate after a plain prompt; 16 tokens unless told, as OpenAI does. Raises Refused."""
    adapter = engine.shelf.find(body.model)
    if isinstance(body.prompt, str):
        prompt = text_tokens(engine.tokenizer, body.prompt, param="prompt")
    elif body.prompt and isinstance(body.prompt[0], str):
        prompt = text_tokens(engine.tokenizer, body.prompt[0], param="prompt")
    else:
        prompt = known_tokens(engine.tokenizer, [int(token) for token in body.prompt], param="prompt")
    limit = room(
        prompt,
        body.max_tokens,
        default=16,
        limit=engine.max_context,
        param="max_tokens",
        prompt_param="prompt",
    )
    return Generation(
        prompt, limit, body.sampling(), adapter=adapter, stops=body.stops(), ignore_eos=body.ignore_eos
    )


def model_list(engine: Engine) -> list[dict[str, Any]]:
    common = {"object": "model", "created": engine.started, "owned_by": "tunewheel"}
    base = {"id": engine.base.name, **common, "root": engine.base.name, "parent": None}
    adapters = [
        {"id": one.name, **common, "root": str(one.path), "parent": engine.base.name}
        for one in engine.shelf.names()
    ]
    # Beside OpenAI's fields and vLLM's: what the gateway holds against what was judged.
    weights = {"revision": engine.base.revision, "dtype": engine.settings.dtype}
    return [{**base, "max_model_len": engine.max_context, **weights}, *adapters]


async def _answer(
    engine: Engine,
    request: Request,
    body: ChatRequest | CompletionRequest,
    generation: Generation,
    kind: Kind,
) -> Response:
    steps = engine.start(generation)
    stamp = {
        "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
    }
    if body.stream:
        return EventStream(_stream(steps, generation, stamp, kind, usage=body.wants_usage), generation)
    return await while_connected(request, _whole(steps, generation, stamp, kind), generation)


async def _whole(
    steps: AsyncGenerator[Progress], generation: Generation, stamp: dict[str, Any], kind: Kind
) -> Response:
    texts: list[str] = []
    reason, count = None, 0
    async with aclosing(steps):
        async for step in steps:
            texts.append(step.text)
            count, reason = count + 1, step.finish_reason
    text = "".join(texts)
    said = {"message": {"role": "assistant", "content": text}} if kind == "chat" else {"text": text}
    return JSONResponse(
        {
            **stamp,
            "object": "chat.completion" if kind == "chat" else "text_completion",
            "choices": [{"index": 0, **said, "finish_reason": reason, "logprobs": None}],
            "usage": _usage(generation, count),
        }
    )


async def _stream(
    steps: AsyncGenerator[Progress], generation: Generation, stamp: dict[str, Any], kind: Kind, *, usage: bool
) -> AsyncGenerator[str]:
    stamp = {**stamp, "object": "chat.completion.chunk" if kind == "chat" else "text_completion"}
    unused = {"usage": None} if usage else {}

    def chunk(said: dict[str, Any], reason: str | None) -> str:
        choice = {"index": 0, **said, "finish_reason": reason, "logprobs": None}
        return event({**stamp, "choices": [choice], **unused})

    count = 0
    try:
        if kind == "chat":
            yield chunk({"delta": {"role": "assistant", "content": ""}}, None)
        async with aclosing(steps):
            async for step in steps:
                count += 1
                if step.text or step.finish_reason:
                    said = {"delta": {"content": step.text} if step.text else {}}
                    yield chunk(said if kind == "chat" else {"text": step.text}, step.finish_reason)
    except EngineFailed as error:
        yield event(error_body(error))
        return
    if usage:
        yield event({**stamp, "choices": [], "usage": _usage(generation, count)})
    yield "data: [DONE]\n\n"


def _usage(generation: Generation, count: int) -> dict[str, int]:
    prompt = len(generation.prompt)
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}

"""OpenAI's API: chat and plain completions, whole or streamed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_generation.generation import Generation
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_engine.chat_formats import AnswerForm, answer_form
from tunewheel_engine.choices import Choices
from tunewheel_engine.engine import Engine
from tunewheel_engine.errors import Refused
from tunewheel_engine.http import EventStream, parse, read_json, while_connected
from tunewheel_engine.openai_answers import AnswerShape, Kind, stream, whole
from tunewheel_engine.openai_requests import ChatRequest, CompletionRequest
from tunewheel_engine.prompts import chat_tokens, known_tokens, room, text_tokens


def routes(engine: Engine) -> list[Route]:
    @needs(Role.APPLICATION, everywhere=True)
    async def chat(request: Request) -> Response:
        body = parse(ChatRequest, await read_json(request, engine.settings.max_body_bytes))
        form = AnswerForm()
        if body.response_format or body.tools or body.tool_choice:
            # Compiling a grammar may take a second. In a thread it does not stop other answers.
            form = await asyncio.to_thread(answer_form, body, engine.grammars, engine.tokenizer)
        shape = _shape(engine, body, "chat", calls=form.calls, logprobs=body.logprobs_wanted())
        return await _answer(engine, request, body, chat_generations(engine, body, form), shape)

    @needs(Role.APPLICATION, everywhere=True)
    async def complete(request: Request) -> Response:
        body = parse(CompletionRequest, await read_json(request, engine.settings.max_body_bytes))
        shape = _shape(engine, body, "text", logprobs=body.logprobs)
        return await _answer(engine, request, body, completion_generations(engine, body), shape)

    @needs(Role.VIEWER, everywhere=True)
    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": model_list(engine)})

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
    ]


def chat_generations(engine: Engine, body: ChatRequest, form: AnswerForm) -> list[Generation]:
    """Return the generations for a chat. By default an answer may fill the context. Raises Refused."""
    newer = body.max_completion_tokens is not None
    prompt = chat_tokens(engine.tokenizer, body.chat_messages(), form.tools, body.chat_template_kwargs or {})
    limit = room(
        prompt,
        body.max_completion_tokens if newer else body.max_tokens,
        default=None,
        limit=engine.max_context,
        param="max_completion_tokens" if newer else "max_tokens",
        prompt_param="messages",
    )
    return _generations(engine, body, prompt, limit, form, logprobs=body.logprobs_wanted())


def completion_generations(engine: Engine, body: CompletionRequest) -> list[Generation]:
    """Return the generations for a plain prompt: 16 tokens by default, as OpenAI has it. Raises Refused."""
    if isinstance(body.prompt, str):
        prompt = text_tokens(engine.tokenizer, body.prompt, param="prompt")
    elif body.prompt and isinstance(body.prompt[0], str):
        prompt = text_tokens(engine.tokenizer, body.prompt[0], param="prompt")
    else:
        prompt = known_tokens(engine.tokenizer, [int(token) for token in body.prompt])
    limit = room(
        prompt,
        body.max_tokens,
        default=16,
        limit=engine.max_context,
        param="max_tokens",
        prompt_param="prompt",
    )
    return _generations(engine, body, prompt, limit, AnswerForm(), logprobs=body.logprobs)


def _generations(
    engine: Engine,
    body: ChatRequest | CompletionRequest,
    prompt: list[int],
    limit: int,
    form: AnswerForm,
    *,
    logprobs: int | None,
) -> list[Generation]:
    """Return one generation for each answer that ``body`` asks for."""
    adapter = engine.shelf.find(body.model)
    _check_biases(engine, body.logit_bias or ())
    rows = engine.settings.max_batch + engine.settings.max_queue
    if body.answers > rows:
        raise Refused(
            f"n={body.answers} is more than this engine generates at a time; ask for at most {rows}",
            param="n",
        )
    return [
        Generation(
            prompt,
            limit,
            body.sampling(choice),
            adapter=adapter,
            stops=(*body.stops(), *form.stops),
            ignore_eos=body.ignore_eos,
            want_logprobs=logprobs is not None,
            top_logprobs=logprobs or 0,
            grammar=form.grammar,
        )
        for choice in range(body.answers)
    ]


def _check_biases(engine: Engine, tokens: Iterable[int]) -> None:
    size = len(engine.tokenizer)
    if wrong := [token for token in tokens if not 0 <= token < size]:
        raise Refused(
            f"logit_bias names token {wrong[0]}; use tokens from 0 to {size - 1}", param="logit_bias"
        )


def model_list(engine: Engine) -> list[dict[str, Any]]:
    common = {"object": "model", "created": engine.started, "owned_by": "tunewheel"}
    base = {"id": engine.base.name, **common, "root": engine.base.name, "parent": None}
    adapters = [
        {"id": one.name, **common, "root": str(one.path), "parent": engine.base.name}
        for one in engine.shelf.names()
    ]
    # In addition to OpenAI's and vLLM's fields: the gateway compares these with the model's verdict.
    weights = {"revision": engine.base.revision, "dtype": engine.settings.dtype, **engine.whole_models}
    return [{**base, "max_model_len": engine.max_context, **weights}, *adapters]


def _shape(
    engine: Engine,
    body: ChatRequest | CompletionRequest,
    kind: Kind,
    *,
    calls: frozenset[str] = frozenset(),
    logprobs: int | None,
) -> AnswerShape:
    stamp = {
        "id": f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
    }
    return AnswerShape(kind, stamp, engine.token_bytes, calls, logprobs)


async def _answer(
    engine: Engine,
    request: Request,
    body: ChatRequest | CompletionRequest,
    generations: list[Generation],
    shape: AnswerShape,
) -> Response:
    choices = Choices(engine, generations)
    if body.stream:
        return EventStream(stream(choices, shape, usage=body.wants_usage), choices)
    return await while_connected(request, whole(choices, shape), choices)

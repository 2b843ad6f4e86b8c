"""Text Generation Inference's API, for its clients: ``huggingface_hub`` and the gateway.

The engine supports a part of the parameters. An unsupported one that would change the answer is refused by
name. Source: TGI's OpenAPI description (``GenerateParameters``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_basemodel.sampling import Sampling
from tunewheel_generation.constraint import Grammar, Grammars
from tunewheel_generation.generation import Generation, Progress
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_engine.engine import Engine
from tunewheel_engine.errors import EngineError, EngineFailed, ModelNotFound, Refused
from tunewheel_engine.http import EventStream, event, parse, read_json, while_connected
from tunewheel_engine.prompts import room, text_tokens
from tunewheel_engine.structured_output import compile_or_refuse, json_source, regex_source

DEFAULT_NEW_TOKENS = 100
PATHS = frozenset({"/", "/generate", "/generate_stream"})
_NOT_SERVED: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "decoder_input_details": (False,),
    "frequency_penalty": (0,),
    "top_n_tokens": (0,),
    "typical_p": (1,),
    "watermark": (False,),
}
"""Unsupported parameters, and their values that have no effect and are accepted."""


class GrammarParameter(BaseModel):
    """A constraint of the answer. Type ``json`` (TGI also has ``json_schema``): a schema, as an object or as
    text. Type ``regex``: an expression that must match the whole answer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["json", "json_schema", "regex"]
    value: str | dict[str, Any]


class Parameters(BaseModel):
    """How to generate. As in TGI, setting temperature, top_k or top_p turns sampling on, even without
    do_sample."""

    model_config = ConfigDict(extra="forbid")

    adapter_id: str | None = None
    details: bool = False
    do_sample: bool = False
    grammar: GrammarParameter | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    stop: Annotated[list[str], Field(max_length=16)] = []
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    truncate: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_served(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        for name, neutral in _NOT_SERVED.items():
            if content.get(name) is not None and content[name] not in neutral:
                raise Refused(f"{name}={content[name]!r} is not supported; leave it out", param=name)
        given = {name: value for name, value in content.items() if value is not None}
        return {name: value for name, value in given.items() if name not in _NOT_SERVED}

    def sampling(self) -> Sampling:
        tempered = self.temperature is not None and self.temperature != 1
        cut = self.top_k is not None or (self.top_p is not None and self.top_p < 1)
        penalty = self.repetition_penalty or 1.0
        if not (self.do_sample or tempered or cut):
            return Sampling(seed=self.seed, repetition_penalty=penalty)
        return Sampling(self.temperature or 1.0, self.top_p or 1.0, self.top_k or 0, self.seed, penalty)


class GenerateRequest(BaseModel):
    """``POST /generate``, ``/generate_stream`` and ``/``."""

    model_config = ConfigDict(extra="forbid")

    inputs: str
    parameters: Parameters = Parameters()
    stream: bool = False
    """Has an effect only at ``/``, as in TGI."""


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
        body, generation = await receive(request)
        return EventStream(_stream(engine.start(generation), body), generation)

    @needs(Role.APPLICATION, everywhere=True)
    async def either(request: Request) -> Response:
        body, generation = await receive(request)
        if body.stream:
            return EventStream(_stream(engine.start(generation), body), generation)
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
        "max_input_tokens": engine.max_context - 1,
        "max_total_tokens": engine.max_context,
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

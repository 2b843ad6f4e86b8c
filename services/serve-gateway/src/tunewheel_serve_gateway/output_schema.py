"""Holds answers to the output schema with which a model was judged.

The engine is asked to constrain the answer. The answer is checked all the same, because an engine may refuse
the schema, or ignore it:

1. An engine that refuses the schema is asked without it, and is not asked for it again for an hour.
2. Where a finished answer does not fit, the engine is asked once more, and told why.
3. Where the second answer does not fit either, the client gets 502 with the reason.

A streamed answer has reached the client before its end is known. Its last chunk says whether it fits. An
answer that was cut off at its limit of tokens, or by a stop string of the client, is never asked for again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import structlog
from tunewheel_contracts.fields import JsonObject

from tunewheel_serve_gateway.chat_request import ChatRequest
from tunewheel_serve_gateway.logprobs import Ask
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.upstream.endpoint import is_constrained
from tunewheel_serve_gateway.upstream.protocol import TOO_LONG, Chunk, UpstreamError, UpstreamRefused

if TYPE_CHECKING:
    from tunewheel_outputs.schema import SchemaCheck

log = structlog.get_logger(__name__)
T = TypeVar("T")
REFUSED_SECONDS = 3600.0
"""An engine that refused the schema of a model is not asked for it for so long."""
VERDICT = "output_schema"
"""The field of a stream's last chunk that says whether the answer fits."""
CUT = frozenset({"length", "content_filter"})
"""Finish reasons of answers that are not whole."""
REFUSALS = frozenset({400, 422})
_LONGEST_REASON = 300
_AGAIN = "This answer does not fit the JSON Schema: {reason}. Answer again, with JSON that fits:\n{schema}"


class DoesNotFit(UpstreamError):
    """The engine wrote an answer twice that does not fit the output schema."""

    status = 502
    code = "invalid_output"
    fault = "model"
    should_retry = False


@dataclass
class OutputSchemas:
    """The schemas of the models that answer, prepared for checking."""

    _checks: dict[str, tuple[JsonObject, SchemaCheck]] = field(
        default_factory=dict[str, "tuple[JsonObject, SchemaCheck]"]
    )

    async def complete(
        self,
        request: ChatRequest,
        target: Target,
        body: dict[str, Any],
        ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Return a whole answer. Raises UpstreamError: see ``ask``; DoesNotFit."""
        check = await self.check(request, target)
        answer = await ask(body)
        reason = _complaint(check, answer)
        if check is None or reason is None or request.parameters.get("stop"):
            return answer
        told = _AGAIN.format(reason=reason, schema=_dumped(target.schema))
        turns = [{"role": "assistant", "content": _texts(answer)[0]}, {"role": "user", "content": told}]
        try:
            second = await ask({**body, "messages": [*body["messages"], *turns]})
        except UpstreamRefused as error:  # for example because the conversation is too long now
            raise _does_not_fit(reason) from error
        if (still := _complaint(check, second)) is not None:
            raise _does_not_fit(still)
        _add_usage(second, answer)
        return second

    async def check(self, request: ChatRequest, target: Target) -> SchemaCheck | None:
        """Return the check of the answer to ``request``; None: it is not held to a schema."""
        schema = target.schema
        if schema is None or not request.is_held_to(target):
            return None
        known = self._checks.get(target.model_id)
        if known is None or known[0] is not schema:
            self._checks[target.model_id] = known = (schema, await asyncio.to_thread(_checking, schema))
        return known[1]


async def held_to(target: Target, ask: Ask[T], body: dict[str, Any], *, sampled: bool = False) -> T:
    """Return what ``ask`` answers to ``body``. An engine that refuses the output schema of ``target`` is
    asked again without the schema. Raises UpstreamError: see ``ask``."""
    try:
        return await ask(body, sampled=sampled)
    except UpstreamRefused as error:
        engine = error.engine
        if error.status not in REFUSALS or error.code == TOO_LONG or not is_constrained(target, body):
            raise
        if engine is None or not engine.constrains(target):  # it was not asked for the schema
            raise
        free = {name: value for name, value in body.items() if name != "response_format"}
        answer = await ask(free, sampled=sampled)
        engine.constrains_from[target.model_id] = time.monotonic() + REFUSED_SECONDS
        log.warning(
            "output_schema_refused", engine=engine.name, model_id=target.model_id, reason=str(error),
            asked_again_after_seconds=REFUSED_SECONDS,
        )  # fmt: skip
        return answer


class StreamCheck:
    """Checks a streamed answer, or several: ``choices`` of them."""

    def __init__(self, check: SchemaCheck, choices: int) -> None:
        self._check = check
        self._texts = [list[str]() for _ in range(choices)]
        self._open = set(range(choices))
        self._reason: str | None = None

    def mark(self, chunk: Chunk) -> None:
        """Take over ``chunk``. Once every answer has ended, write into the chunk whether all of them fit."""
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            if index >= len(self._texts):
                continue
            self._texts[index].append((choice.get("delta") or {}).get("content") or "")
            if (finish := choice.get("finish_reason")) is not None and index in self._open:
                self._open.discard(index)
                self._reason = self._reason or _why_not(self._check, "".join(self._texts[index]), finish)
        if not self._open:
            chunk[VERDICT] = {"valid": self._reason is None, "reason": self._reason}


def _checking(schema: JsonObject) -> SchemaCheck:
    from tunewheel_outputs.schema import SchemaCheck

    return SchemaCheck(schema)


def _complaint(check: SchemaCheck | None, answer: Mapping[str, Any]) -> str | None:
    """Return why a finished choice of a whole answer does not fit; None: all fit."""
    if check is None:
        return None
    for choice, text in zip(answer["choices"], _texts(answer), strict=True):
        finish = choice.get("finish_reason")
        if finish not in CUT and (reason := _why_not(check, text, finish)) is not None:
            return reason
    return None


def _texts(answer: Mapping[str, Any]) -> list[str]:
    return [(choice.get("message") or {}).get("content") or "" for choice in answer["choices"]]


def _why_not(check: SchemaCheck, text: str, finish: str | None) -> str | None:
    from tunewheel_outputs.parsing import Unparsed, parse

    try:
        error = check.error(parse(text))
    except Unparsed:
        return f"it was cut off ({finish})" if finish in CUT else "it is not JSON"
    except (RecursionError, ArithmeticError):
        return "it is nested too deeply, or has too large a number, to be checked"
    return None if error is None else f"{error.json_path}: {error.message}"[:_LONGEST_REASON]


def _does_not_fit(reason: str) -> DoesNotFit:
    return DoesNotFit(
        f"the model answered twice with what does not fit the project's output schema: {reason}; ask "
        'otherwise, or send response_format {"type": "text"} for an answer of any form'
    )


def _dumped(schema: JsonObject | None) -> str:
    return orjson.dumps(schema).decode()


def _add_usage(answer: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Count the tokens of the answer ``before`` too."""
    usage, earlier = answer.get("usage"), before.get("usage")
    if isinstance(usage, dict) and isinstance(earlier, dict):
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            usage[name] = (usage.get(name) or 0) + (earlier.get(name) or 0)

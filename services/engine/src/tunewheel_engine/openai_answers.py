"""Writes generated answers in OpenAI's shapes: as a whole, or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse, Response
from tunewheel_basemodel.detokenizing import TokenBytes
from tunewheel_generation.generation import Progress, Token

from tunewheel_engine.choices import Choices
from tunewheel_engine.errors import EngineError, EngineFailed
from tunewheel_engine.http import event
from tunewheel_engine.tool_calls import ToolCall, ToolCallReader

Kind = Literal["chat", "text"]
_LEAST_LOGPROB = -9999.0
"""Written in place of minus infinity, which JSON does not have; vLLM writes the same number."""


@dataclass(frozen=True)
class AnswerShape:
    """How the answers to one request are written.

    ``stamp``: the fields that every chunk repeats: id, created, model. ``calls``: names of the functions
    whose calls are searched for in the text. ``logprobs``: how many of the likeliest tokens are listed for
    each chosen token; None: no log probabilities at all.
    """

    kind: Kind
    stamp: dict[str, Any]
    token_bytes: TokenBytes
    calls: frozenset[str] = frozenset()
    logprobs: int | None = None


def error_body(error: EngineError) -> dict[str, Any]:
    """Return ``error`` in OpenAI's shape."""
    details = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return {"error": details}


@dataclass
class _Choice:
    """One answer while it is generated. Deltas have OpenAI's shape for chats, and ``text`` for
    completions."""

    shape: AnswerShape
    reader: ToolCallReader | None
    tokens: list[Token] = field(default_factory=list)
    offset: int = 0
    count: int = 0
    reason: str | None = None

    def add(self, step: Progress) -> list[dict[str, Any]]:
        self.count += 1
        ends = step.stopped_by == "eos" and step.token.special
        if self.shape.logprobs is not None and not ends:
            self.tokens.append(step.token)
        if self.shape.kind == "text":
            deltas = [{"text": step.text}] if step.text else []
        elif self.reader is None:
            deltas = [{"content": step.text}] if step.text else []
        else:
            parts = self.reader.feed(step.text) + (self.reader.finish() if step.finish_reason else [])
            deltas = self._deltas(parts, self.reader)
        self.reason = step.finish_reason
        if self.reason == "stop" and self.reader is not None and self.reader.calls:
            self.reason = "tool_calls"
        return deltas

    def _deltas(self, parts: list[str | ToolCall], reader: ToolCallReader) -> list[dict[str, Any]]:
        first = reader.calls - sum(isinstance(part, ToolCall) for part in parts)
        out: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, str):
                out.append({"content": part})
                continue
            begun = {"name": part.name, "arguments": ""}
            out += [
                {"tool_calls": [{"index": first, "id": part.id, "type": "function", "function": begun}]},
                {"tool_calls": [{"index": first, "function": {"arguments": part.arguments}}]},
            ]
            first += 1
        return out

    def take_logprobs(self) -> dict[str, Any] | None:
        """Return the log probabilities of the tokens since the last call."""
        tokens, self.tokens = self.tokens, []
        if self.shape.logprobs is None or not tokens:
            return None
        if self.shape.kind == "chat":
            return {"content": [_entry(token, self.shape) for token in tokens], "refusal": None}
        return self._plain_logprobs(tokens)

    def _plain_logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        texts = [_text(self.shape.token_bytes.of(token.id)) for token in tokens]
        offsets: list[int] = []
        for text in texts:
            offsets.append(self.offset)
            self.offset += len(text)
        likeliest = [
            {_text(self.shape.token_bytes.of(id)): _finite(value) for id, value in token.likeliest}
            for token in tokens
        ]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": likeliest if self.shape.logprobs else None,
            "text_offset": offsets,
        }


def _entry(token: Token, shape: AnswerShape) -> dict[str, Any]:
    likeliest = [_scored(id, value, shape) for id, value in token.likeliest]
    return {**_scored(token.id, token.logprob, shape), "top_logprobs": likeliest}


def _scored(token: int, logprob: float | None, shape: AnswerShape) -> dict[str, Any]:
    written = shape.token_bytes.of(token)
    return {"token": _text(written), "logprob": _finite(logprob), "bytes": list(written)}


def _text(written: bytes) -> str:
    return written.decode(errors="replace")


def _finite(logprob: float | None) -> float:
    return max(logprob if logprob is not None else _LEAST_LOGPROB, _LEAST_LOGPROB)


def _choices(choices: Choices, shape: AnswerShape) -> list[_Choice]:
    return [_Choice(shape, ToolCallReader(shape.calls) if shape.calls else None) for _ in choices.generations]


async def whole(choices: Choices, shape: AnswerShape) -> Response:
    """Return all answers in one body."""
    made = _choices(choices, shape)
    deltas: list[list[dict[str, Any]]] = [[] for _ in made]
    async with aclosing(choices.steps()) as steps:
        async for number, step in steps:
            deltas[number] += made[number].add(step)
    said = [
        {
            "index": number,
            **_said(deltas[number], shape.kind),
            "finish_reason": choice.reason,
            "logprobs": choice.take_logprobs(),
        }
        for number, choice in enumerate(made)
    ]
    name = "chat.completion" if shape.kind == "chat" else "text_completion"
    return JSONResponse({**shape.stamp, "object": name, "choices": said, "usage": _usage(choices, made)})


def _said(deltas: list[dict[str, Any]], kind: Kind) -> dict[str, Any]:
    if kind == "text":
        return {"text": "".join(delta["text"] for delta in deltas)}
    text = "".join(delta.get("content", "") for delta in deltas)
    calls: list[dict[str, Any]] = []
    for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
        if "id" in call:
            calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
        else:
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    message = {"role": "assistant", "content": text if text or not calls else None}
    return {"message": {**message, "tool_calls": calls} if calls else message}


async def stream(choices: Choices, shape: AnswerShape, *, usage: bool) -> AsyncGenerator[str]:
    """Yield the chunks of all answers as server-sent events, as soon as they are generated."""
    chat = shape.kind == "chat"
    stamp = {**shape.stamp, "object": "chat.completion.chunk" if chat else "text_completion"}
    unused = {"usage": None} if usage else {}
    made = _choices(choices, shape)

    def chunk(number: int, said: dict[str, Any], reason: str | None, *, logprobs: bool = True) -> str:
        told = made[number].take_logprobs() if logprobs else None
        choice = {"index": number, **said, "finish_reason": reason, "logprobs": told}
        return event({**stamp, "choices": [choice], **unused})

    try:
        if chat:
            for number in range(len(made)):
                yield chunk(number, {"delta": {"role": "assistant", "content": ""}}, None)
        async with aclosing(choices.steps()) as steps:
            async for number, step in steps:
                deltas = made[number].add(step)
                if step.finish_reason and not deltas:
                    deltas = [{} if chat else {"text": ""}]
                for at, delta in enumerate(deltas, 1):
                    last = at == len(deltas)
                    reason = made[number].reason if last else None
                    yield chunk(number, {"delta": delta} if chat else delta, reason, logprobs=last)
    except EngineFailed as error:
        yield event(error_body(error))
        return
    if usage:
        yield event({**stamp, "choices": [], "usage": _usage(choices, made)})
    yield "data: [DONE]\n\n"


def _usage(choices: Choices, made: list[_Choice]) -> dict[str, int]:
    prompt, generated = choices.prompt_tokens, sum(choice.count for choice in made)
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}

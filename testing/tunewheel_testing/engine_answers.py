"""What the fake engine says: whole answers and the chunks of streams, as vLLM writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]


def asked_of(body: Body) -> str:
    return body["messages"][-1]["content"] or ""


def said(body: Body, n: int = 0) -> str:
    """Return the text of choice ``n``: ``<model>: <last message>``. Where JSON is asked for, every field of
    the schema says it."""
    form = body.get("response_format") or {}
    if form.get("type") in ("json_object", "json_schema"):
        schema = (form.get("json_schema") or {}).get("schema", {})
        return json.dumps(dict.fromkeys(schema.get("properties", ("said",)), asked_of(body)))
    return f"{body['model']}: {asked_of(body)}" + (f" #{n}" if n else "")


def usage(body: Body) -> dict[str, int]:
    prompt = sum(len((m["content"] or "").split()) for m in body["messages"])
    answer = sum(len(said(body, n).split()) for n in range(body.get("n") or 1))
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def calls(body: Body) -> list[dict[str, Any]]:
    """Call the first tool where a user asks; what a tool returned is answered in words."""
    if not body.get("tools") or body["messages"][-1]["role"] != "user":
        return []
    name = body["tools"][0]["function"]["name"]
    function = {"name": name, "arguments": json.dumps({"order": asked_of(body)})}
    return [{"id": "call_1", "type": "function", "function": function}]


def completion(body: Body) -> dict[str, Any]:
    choices = [_choice(body, n) for n in range(body.get("n") or 1)]
    head = {"id": "engine-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": choices, "usage": usage(body)}


def _choice(body: Body, n: int) -> dict[str, Any]:
    called, text = calls(body), said(body, n)
    message = {"role": "assistant", "content": None if called else text}
    if called:
        message["tool_calls"] = called
    logprobs = {"content": _tokens(body, text)} if body.get("logprobs") else None
    reason = "tool_calls" if called else "stop"
    return {"index": n, "message": message, "finish_reason": reason, "logprobs": logprobs}


def _tokens(body: Body, text: str) -> list[dict[str, Any]]:
    """Return a token for each word. With alternatives: as many tokens as may be said, for an answer of most
    bytes."""
    if not body.get("top_logprobs"):
        return [_token(word) for word in re.findall(r"\s*\S+", text)]
    token, tokens = _token(text), body.get("max_tokens") or 1
    return [token | {"top_logprobs": [token] * (body.get("top_logprobs") or 0)}] * tokens


def _token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}


def chunks(body: Body) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream but for its last, which bears the usage."""
    if called := calls(body):
        yield from _call_chunks(body, called[0])
        return
    choices = range(body.get("n") or 1)
    for n in choices:
        for number, word in enumerate(said(body, n).split(" ")):
            piece = f" {word}" if number else word
            logprobs = {"content": [_token(piece)]} if body.get("logprobs") else None
            role = {} if number else {"role": "assistant"}  # without it Node's client takes no stream
            yield chunk(body, {**role, "content": piece}, None, n=n, logprobs=logprobs)
    for n in choices:
        yield chunk(body, {}, "stop", n=n)


def _call_chunks(body: Body, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = call["function"]["arguments"]
    first = {**call, "index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}
    yield chunk(body, {"role": "assistant", "content": None, "tool_calls": [first]}, None)
    for at in range(0, len(arguments), 4):
        piece = {"index": 0, "function": {"arguments": arguments[at : at + 4]}}
        yield chunk(body, {"tool_calls": [piece]}, None)
    yield chunk(body, {}, "tool_calls")


def chunk(
    body: Body, delta: dict[str, Any], finish: str | None, *, n: int = 0, logprobs: Any = None
) -> dict[str, Any]:
    head = {"id": "engine-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    choice = {"index": n, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {**head, "choices": [choice], "usage": None}


def last_chunk(body: Body) -> dict[str, Any]:
    return {**chunk(body, {}, None), "choices": [], "usage": usage(body)}

"""Maps ``POST /v1/responses`` onto a chat request. Nothing is stored: each request brings the whole
conversation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from tunewheel_serve_gateway.chat_body import WITHOUT_EFFECT
from tunewheel_serve_gateway.chat_request import ChatRequest, Words, parse_json, text_of
from tunewheel_serve_gateway.errors import BadRequest
from tunewheel_serve_gateway.responses_body import NotServed, ResponsesBody, Stored
from tunewheel_serve_gateway.responses_form import ResponsesForm

SAME = ("parallel_tool_calls", "retrieval", "stream", "temperature", "top_p", *WITHOUT_EFFECT)
"""Fields that a chat request has too."""
WORDS = Words(
    TypeAdapter(ResponsesBody),
    frozenset(NotServed.__annotations__),
    {"messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text.format"},
)


def parse_responses_request(raw: bytes, tolerated: Collection[str] = ()) -> ChatRequest:
    """Read a request body. Raises BadRequest: ``param`` names the field that is wrong."""
    given = parse_json(raw)
    stored = next((name for name in Stored.__annotations__ if given.get(name) is not None), None)
    if stored is not None:
        reason = f"{stored} is not served: no answer is stored here. Send the earlier items in input"
        raise BadRequest(reason, param=stored, code="unsupported_parameter")
    body, dropped = WORDS.read(raw, tolerated)
    chat = {name: body[name] for name in SAME if name in body}
    chat |= {
        "model": body["model"],
        "messages": list(_messages(body)),
        "stream_options": {"include_usage": True},
    }
    if "max_output_tokens" in body:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if "tools" in body:
        chat["tools"] = [_tool(tool) for tool in body["tools"]]
    if (choice := body.get("tool_choice")) is not None:
        named = isinstance(choice, dict)
        chat["tool_choice"] = _typed("function", function={"name": choice["name"]}) if named else choice
    form = body.get("text", {}).get("format")
    if form is not None:
        chat["response_format"] = _response_format(form)
    request, answer = WORDS.request(chat, len(raw), dropped), ResponsesForm(body)
    if not answer.can_be_written():
        raise BadRequest("the response cannot repeat the body; nest it less", param="(body)")
    return replace(request, form=answer)


def _typed(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return _typed("function", function={name: value for name, value in tool.items() if name != "type"})


def _response_format(form: Mapping[str, Any]) -> dict[str, Any]:
    schema = {name: value for name, value in form.items() if name != "type" and value is not None}
    needed = {"name", "schema"} if form["type"] == "json_schema" else set[str]()
    if not needed <= schema.keys() or bool(schema) != bool(needed):
        raise BadRequest(
            "text.format needs name and schema with the type json_schema, and takes none with another type",
            param="text.format",
            code="missing_required_parameter",
        )
    return _typed("json_schema", json_schema=schema) if schema else _typed(form["type"])


def _messages(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a chat request. Calls of functions that follow each other, and the message of the
    assistant before them, are one message."""
    if body.get("instructions"):
        yield {"role": "system", "content": body["instructions"]}
    if isinstance(body["input"], str):
        yield {"role": "user", "content": body["input"]}
        return
    said: dict[str, Any] | None = None
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "function_call":
            said = said or {"role": "assistant", "content": None}
            function = {"name": item["name"], "arguments": item["arguments"]}
            said.setdefault("tool_calls", []).append(
                _typed("function", id=item["call_id"], function=function)
            )
            continue
        if said is not None:
            yield said
            said = None
        if kind == "function_call_output":
            output = {"role": "tool", "tool_call_id": item["call_id"]}
            yield output | {"content": text_of(item["output"])}
        elif item["role"] == "assistant":
            said = {"role": "assistant", "content": text_of(item["content"])}
        else:
            yield {"role": item["role"], "content": text_of(item["content"])}
    if said is not None:
        yield said

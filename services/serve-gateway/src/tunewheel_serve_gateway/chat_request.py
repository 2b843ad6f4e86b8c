"""A chat request as a client sent it: checked where the gateway depends on it, passed on otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from tunewheel_serve_gateway.errors import BadRequest

Messages = tuple[tuple[str, str], ...]
"""(role, content) pairs; roles are system, user and assistant."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
UNSUPPORTED = ("tools", "functions", "tool_choice", "function_call", "audio")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str
    messages: Messages
    parameters: dict[str, Any]
    """Everything else in the body, passed to the engine as it is."""
    stream: bool
    include_usage: bool
    user: str | None

    def upstream_body(
        self, *, model: str, messages: Messages, max_tokens: int | None = None
    ) -> dict[str, Any]:
        """Return the body for the engine. Usage is always asked for: the completion log needs it.
        ``max_tokens`` counts where the client set no limit."""
        body = self.parameters | {
            "model": model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": self.stream,
        }
        if max_tokens and body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
            body["max_tokens"] = max_tokens
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return body


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the body as a JSON object.

    Raises:
        BadRequest: not UTF-8 JSON, or not an object.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}; send UTF-8 JSON", param="(body)") from error
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object; send one with model and messages", param="(body)")
    return body


def parse_chat_request(raw: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        BadRequest: ``param`` names the field that is wrong.
    """
    body = parse_json(raw)
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be a string; name a project or a model id", param="model")
    messages = _messages(body.pop("messages", None))
    stream = body.pop("stream", None) or False
    if not isinstance(stream, bool):
        raise BadRequest("stream must be true or false", param="stream")
    options = body.pop("stream_options", None) or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object", param="stream_options")
    _refuse_unsupported(body)
    _check_depth(body)
    user = body.get("user")
    if user is not None and not isinstance(user, str):
        raise BadRequest("user must be a string", param="user")
    include_usage = bool(options.get("include_usage"))
    return ChatRequest(model, messages, body, stream, include_usage, user or body.get("safety_identifier"))


def _check_depth(parameters: dict[str, Any]) -> None:
    """orjson reads more levels than it writes, and the engine is to be written to."""
    try:
        orjson.dumps(parameters)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body cannot be passed on ({error}); nest it less", param="(body)") from error


def with_system_prompt(messages: Messages, system_prompt: str | None) -> Messages:
    """Prepend the project's system prompt unless the client sent one of its own."""
    if not system_prompt or any(role == "system" for role, _ in messages):
        return messages
    return (("system", system_prompt), *messages)


def _messages(value: Any) -> Messages:
    if not isinstance(value, list) or not value:
        raise BadRequest("messages must be a list of at least one {role, content}", param="messages")
    return tuple(_message(message, f"messages[{n}]") for n, message in enumerate(value))


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadRequest(f"{where} must be an object with role and content", param=where)
    named = message.get("role")
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}", param=f"{where}.role")
    return role, _content(message.get("content"), f"{where}.content")


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        parts = [text for text in texts if isinstance(text, str)]
        if len(parts) == len(content):
            return "".join(parts)
    raise BadRequest(f"{where} must be text, or a list of text parts", param=where)


def _refuse_unsupported(body: dict[str, Any]) -> None:
    for name in UNSUPPORTED:
        if body.get(name):
            raise BadRequest(f"{name} is not supported here; leave it out", param=name)
    if body.get("n") not in (None, 1):
        raise BadRequest("n must be 1; send the request again for another answer", param="n")

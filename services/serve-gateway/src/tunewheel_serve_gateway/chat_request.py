"""A chat request as a client sent it, and the part of it that reaches the engine.

That part is a closed list: engines also take parameters by which a client replaces the chat template,
overtakes others or generates without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tunewheel_serve_gateway.errors import BadRequest

Messages = tuple[tuple[str, str], ...]
"""(role, content) pairs; roles are system, user and assistant."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names for the most tokens that an answer may have: an old one and a new one."""
PASSED_ON = frozenset(
    {
        *LIMITS,
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "min_p",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)
"""Parameters that reach the engine, as they are."""
WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters of OpenAI's that change no answer. They are taken, and end here."""
LONGEST_NAME = 100
"""Characters of an unknown parameter's name that are said back."""
NOT_SERVED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": ("none",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters of OpenAI's that would change the answer: the values that ask for nothing."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str
    messages: Messages
    parameters: dict[str, Any]
    """What is passed on, and is not null."""
    stream: bool
    include_usage: bool
    user: str | None

    def upstream_body(
        self,
        *,
        model: str,
        messages: Messages,
        max_tokens: int | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the body for the engine. Usage is always asked for: the completion log needs it.
        ``max_tokens`` counts where the client set no limit, and ``defaults`` where it set nothing else."""
        body = {**(defaults or {}), **self.parameters} | {
            "model": model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": self.stream,
        }
        if max_tokens and not any(name in self.parameters for name in LIMITS):
            body["max_tokens"] = max_tokens
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    def check_limit(self, most: int) -> None:
        """Refuse to ask for more than ``most`` tokens.

        Raises:
            BadRequest
        """
        for name in LIMITS:
            asked = self.parameters.get(name)
            if asked is not None and asked > most:
                raise BadRequest(
                    f"{name} is too large: {asked}; at most {most} tokens are answered here",
                    param=name,
                    code="invalid_value",
                )


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
    for name in ("user", "safety_identifier"):
        if not isinstance(body.get(name), str | None):
            raise BadRequest(f"{name} must be a string", param=name)
    user = body.get("user") or body.get("safety_identifier")
    return ChatRequest(model, messages, _passed_on(body), stream, bool(options.get("include_usage")), user)


def _passed_on(body: dict[str, Any]) -> dict[str, Any]:
    """Return the part of ``body`` that is for the engine.

    Raises:
        BadRequest: something in it is not served or not known, cannot be written, or is no limit.
    """
    parameters: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or name in WITHOUT_EFFECT:
            continue
        if name in PASSED_ON:
            parameters[name] = value
        elif name not in NOT_SERVED:
            named = name[:LONGEST_NAME]
            served = ", ".join(sorted(PASSED_ON))
            reason = f"Unknown parameter: {named!r}; leave it out. The engine is passed {served}"
            raise BadRequest(reason, param=named, code="unknown_parameter")
        elif value not in NOT_SERVED[name]:
            advice = "send the request again for another answer" if name == "n" else "leave it out"
            raise BadRequest(f"{name} is not served here; {advice}", param=name, code="unsupported_parameter")
    for name in LIMITS:
        if name in parameters and type(parameters[name]) is not int:
            raise BadRequest(f"{name} must be a whole number", param=name, code="invalid_type")
    try:
        orjson.dumps(parameters)  # which writes fewer levels than it reads
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body cannot be passed on ({error}); nest it less", param="(body)") from error
    return parameters


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

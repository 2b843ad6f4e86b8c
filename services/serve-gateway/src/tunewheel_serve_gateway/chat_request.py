"""A chat request as a client sent it, and the part of it that reaches the engine."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_retrieval.prompts import with_context

from tunewheel_serve_gateway.chat_body import CHAT_BODY, NOT_SERVED, PASSED_ON, WITHOUT_EFFECT
from tunewheel_serve_gateway.errors import ApiError, BadRequest, Headers
from tunewheel_serve_gateway.forms import CHAT, Form
from tunewheel_serve_gateway.retrieval.retrieved import Retrieved
from tunewheel_serve_gateway.routing import Target

Messages = tuple[tuple[str, str], ...]
"""(role, content) pairs as they are logged. The roles are system, user and assistant."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""OpenAI's old and new name of the limit of output tokens."""
NAMES_FORM = frozenset({"response_format", "tools"})
"""Parameters by which a client names the form of the answer."""
LONGEST_NAME = 100
"""Most characters of an unknown parameter's name that an error message repeats."""
LONGEST_VALUE = 40
MOST_COMPLAINTS = 200
"""With more validation errors than this, none is read: reading those of a body full of errors would take a
quarter of a second."""
_ENGINE_ROLES = {"developer": "system"}
_LOGGED_ROLES = {"developer": "system", "tool": "system"}
"""Roles that are logged as another role. The log has no role for tools, and a tool's result is neither the
user's question nor the model's answer."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str
    messages: Messages
    """The messages as they are logged. A message without text is logged as the JSON of its tool calls."""
    conversation: tuple[dict[str, Any], ...]
    """The messages as they are sent to the engine."""
    parameters: dict[str, Any]
    """The parameters of ``PassedOn`` that the client sent and that are not null."""
    stream: bool
    include_usage: bool
    user: str | None
    size_bytes: int
    """Bytes of the body, as it was sent."""
    retrieval: Literal["on", "off"] | None = None
    retrieved: Retrieved | None = None
    """The passages found for the request; None: no retrieval was asked for. The log holds only their ids."""
    retrieves_as_declared: bool = True
    """Whether the client's ``retrieval`` is absent or equals the default of the project's spec."""
    form: Form = CHAT
    is_bare: bool = False
    """Whether the project's system prompt is left out."""
    dropped: tuple[str, ...] = ()
    """The fields of the body that were left out, because the settings name them."""

    @property
    def headers(self) -> Headers:
        """The response headers that name the passages in the prompt, and the fields that were left out."""
        found = self.retrieved.headers if self.retrieved is not None else []
        return [*found, *dropped_header(self.dropped)]

    def without_last_passage(self) -> ChatRequest | None:
        """Return the request without the last passage of its prompt; None: no passage can be dropped."""
        fewer = self.retrieved.fewer if self.retrieved is not None else None
        return replace(self, retrieved=fewer()) if fewer is not None else None

    def citation_for(self, target: Target) -> str:
        """Return the text that is appended to the answer of ``target``; "" where the answer is JSON."""
        is_text = self.parameters.get("response_format", {}).get("type", "text") == "text"
        is_text = is_text and not self.is_held_to(target)
        return self.retrieved.citation if self.retrieved is not None and is_text else ""

    def messages_with(self, system_prompt: str | None) -> Messages:
        """Return the messages as they are logged. The project's system prompt comes first, unless the client
        sent a system prompt."""
        if not system_prompt or not self._lacks(system_prompt):
            return self.messages
        return (("system", system_prompt), *self.messages)

    def _lacks(self, system_prompt: str | None) -> bool:
        return (
            bool(system_prompt)
            and not self.is_bare
            and all(one["role"] != "system" for one in self.conversation)
        )

    def is_held_to(self, target: Target) -> bool:
        """Return whether the answer is held to the output schema of ``target``: it has one, and the client
        named no form of its own."""
        return target.response_format is not None and not self.parameters.keys() & NAMES_FORM

    def upstream_body(self, target: Target) -> dict[str, Any]:
        """Return the body for the engine.

        The system prompt, the token limit and the decoding parameters of ``target`` are used where the client
        set none, and its response format where the client named no form. Retrieved passages are appended to
        the system message. Usage is always requested, because the completion log needs it.
        """
        defaults = decoding_parameters(target.bundle) if target.bundle else {}
        body: dict[str, Any] = {**defaults, **self.parameters} | {
            "model": target.upstream_model,
            "messages": list(self.conversation),
            "stream": self.stream,
        }
        if self._lacks(target.system_prompt):
            body["messages"].insert(0, {"role": "system", "content": target.system_prompt})
        if self.retrieved is not None:
            body["messages"] = with_context(body["messages"], self.retrieved.context)
        if target.max_output_tokens and not any(name in self.parameters for name in LIMITS):
            body["max_tokens"] = target.max_output_tokens
        if target.chat_template_kwargs:
            body["chat_template_kwargs"] = target.chat_template_kwargs
        if self.is_held_to(target):
            body["response_format"] = target.response_format
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    def check_limit(self, most: int) -> None:
        """Refuse a request for more than ``most`` output tokens. Raises BadRequest."""
        for name in LIMITS:
            asked = self.parameters.get(name)
            if asked is not None and asked > most:
                raise BadRequest(
                    f"{name} is {asked}; the limit here is {most} tokens: ask for fewer",
                    param=name,
                    code="invalid_value",
                )


def decoding_parameters(bundle: Bundle) -> dict[str, Any]:
    """Return the decoding settings with which the model was judged, as parameters of OpenAI's API. Settings
    without effect are left out, since not every engine accepts them."""
    decoding = bundle.decoding
    parameters: dict[str, Any] = {"temperature": decoding.temperature}
    if decoding.top_p < 1:
        parameters["top_p"] = decoding.top_p
    if decoding.repetition_penalty != 1:
        parameters["repetition_penalty"] = decoding.repetition_penalty
    if decoding.seed is not None:
        parameters["seed"] = decoding.seed
    return parameters


def dropped_header(dropped: Collection[str]) -> Headers:
    """Return the header that names the fields that were left out; no header if no field was."""
    return [(b"x-tunewheel-dropped", ", ".join(dropped).encode())] if dropped else []


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the body as a JSON object. Where a name occurs twice, the last value counts. Raises BadRequest:
    not UTF-8 JSON, or not an object."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = f"the body is not JSON: {error}; send UTF-8 JSON"
        raise BadRequest(reason, param="(body)", code="invalid_json") from error
    if not isinstance(body, dict):
        reason = "the body is not a JSON object; send one with model and messages"
        raise BadRequest(reason, param="(body)", code="invalid_type")
    return body


@dataclass(frozen=True)
class Words:
    """The fields that one endpoint takes. ``not_served``: those of which only values without effect are
    accepted. ``renamed``: this endpoint's names of fields of a chat request."""

    body: TypeAdapter[Any]
    not_served: Collection[str]
    renamed: Mapping[str, str]

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.body.json_schema()["properties"])

    def read(self, raw: bytes, tolerated: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the fields of a request body that are not null, and the names of the ``tolerated`` fields
        that were left out. Raises BadRequest: ``param`` names the field that is wrong."""
        given = {name: value for name, value in parse_json(raw).items() if value is not None}
        dropped = tuple(sorted(given.keys() & tolerated)) if tolerated else ()
        for name in dropped:
            del given[name]
        unknown = next((name for name in given if name not in self.known), None)
        if unknown is not None:
            named = unknown[:LONGEST_NAME]
            served = ", ".join(sorted(self.known - WITHOUT_EFFECT - set(self.not_served)))
            reason = f"Unknown parameter: {named!r}; leave it out. Served are {served}"
            raise BadRequest(reason, param=named, code="unknown_parameter")
        try:
            return dict(self.body.validate_python(given)), dropped
        except ValidationError as error:
            raise refusal_of(error, self.not_served) from error

    def request(self, body: dict[str, Any], size_bytes: int, dropped: tuple[str, ...]) -> ChatRequest:
        """Return the request of a validated ``ChatBody``. Raises BadRequest."""
        try:
            return request_of(body, size_bytes, dropped)
        except ApiError as error:
            raise self.told(error) from error

    def told(self, error: ApiError) -> ApiError:
        """Return ``error`` with this endpoint's names of fields."""
        old = (error.param or "").partition("[")[0]
        if old in self.renamed:
            error.param = self.renamed[old]
            error.message = re.sub(rf"\b{old}\b", error.param, error.message)
        return error


CHAT_WORDS = Words(CHAT_BODY, NOT_SERVED, {})


def parse_chat_request(raw: bytes, tolerated: Collection[str] = ()) -> ChatRequest:
    """Read a request body. Raises BadRequest: ``param`` names the field that is wrong."""
    body, dropped = CHAT_WORDS.read(raw, tolerated)
    return CHAT_WORDS.request(body, len(raw), dropped)


def request_of(body: dict[str, Any], size_bytes: int, dropped: tuple[str, ...]) -> ChatRequest:
    """Return the request of a validated ``ChatBody``. Raises BadRequest with the names of ``ChatBody``."""
    conversation = tuple(_for_engine(one, f"messages[{n}]") for n, one in enumerate(body["messages"]))
    return ChatRequest(
        body["model"],
        tuple(_for_log(message) for message in body["messages"]),
        conversation,
        _passed_on(body),
        body.get("stream", False),
        bool(body.get("stream_options", {}).get("include_usage")),
        body.get("user") or body.get("safety_identifier"),
        size_bytes,
        body.get("retrieval"),
        dropped=dropped,
    )


def text_of_calls(calls: Any) -> str:
    """Return tool calls as JSON. It is logged as the text of a message that has no text."""
    return orjson.dumps(calls).decode() if calls else ""


def _passed_on(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``body`` that are passed to the engine. Raises BadRequest: a parameter needs
    another one that is missing, or the parameters are nested too deeply."""
    parameters = {name: body[name] for name in body.keys() & PASSED_ON}
    _check_tools(parameters)
    if parameters.get("top_logprobs") and not parameters.get("logprobs"):
        raise _missing("logprobs", "top_logprobs needs logprobs: true; send both, or leave top_logprobs out")
    form = parameters.get("response_format")
    if form is not None and (form["type"] == "json_schema") != bool(form.get("json_schema")):
        reason = (
            "response_format needs json_schema: {name, schema} with the type json_schema, and takes none "
            "with another type"
        )
        raise _missing("response_format.json_schema", reason)
    try:
        orjson.dumps(parameters)  # orjson reads deeper nesting than it can write
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body cannot be passed on ({error}); nest it less", param="(body)") from error
    return parameters


def _check_tools(parameters: dict[str, Any]) -> None:
    """Drop parameters that have no effect without tools, and refuse those that need tools. Raises
    BadRequest."""
    tools = parameters.get("tools")
    choice = parameters.get("tool_choice")
    if not tools:
        if choice not in (None, "none", "auto"):
            raise _missing("tools", "tool_choice needs tools; send them, or leave tool_choice out")
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            parameters.pop(name, None)
    elif isinstance(choice, dict):
        named = choice["function"]["name"]
        if all(tool["function"]["name"] != named for tool in tools):
            reason = f"tool_choice names {named!r}, which is not in tools; name one of them"
            raise BadRequest(reason, param="tool_choice", code="invalid_value")


def _for_engine(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``message`` with its text parts joined. Raises BadRequest: the message has no text, has
    ``tool_calls`` in a role other than assistant, or has the role tool without ``tool_call_id``."""
    role, content, calls = message["role"], _content_of(message), message.get("tool_calls")
    sent: dict[str, Any] = {"role": _ENGINE_ROLES.get(role, role), "content": text_of(content)}
    if calls:
        if role != "assistant":
            reason = f"{where}.tool_calls is only for the role assistant; leave it out"
            raise BadRequest(reason, param=f"{where}.tool_calls", code="invalid_value")
        sent["tool_calls"] = calls
    elif content is None:
        reason = f"{where}.content is missing; send text, or a list of text parts"
        raise _missing(f"{where}.content", reason)
    if role == "tool":
        if not message.get("tool_call_id"):
            reason = f"{where}.tool_call_id is missing; send the id of the call that it answers"
            raise _missing(f"{where}.tool_call_id", reason)
        sent["tool_call_id"] = message["tool_call_id"]
    return sent


def _for_log(message: Mapping[str, Any]) -> tuple[str, str]:
    text = text_of(_content_of(message)) or text_of_calls(message.get("tool_calls"))
    role: str = message["role"]
    return _LOGGED_ROLES.get(role, role), text


def _content_of(message: Mapping[str, Any]) -> Any:
    """Return the content of a message; of an assistant's that has none, its refusal."""
    content = message.get("content")
    return message.get("refusal") if content is None and message["role"] == "assistant" else content


def text_of(content: str | Sequence[Mapping[str, str]] | None) -> str | None:
    """Return the text of a message's content: its parts, joined."""
    if content is None or isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal", "") for part in content)


def _missing(param: str, reason: str) -> BadRequest:
    return BadRequest(reason, param=param, code="missing_required_parameter")


def refusal_of(error: ValidationError, not_served: Collection[str]) -> BadRequest:
    """Return pydantic's first error in OpenAI's shape. ``not_served``: parameters of which only values
    without effect are accepted."""
    if error.error_count() > MOST_COMPLAINTS:
        reason = f"the body has {error.error_count()} wrong fields; compare it with /openapi.json"
        return BadRequest(reason, param="(body)", code="invalid_value")
    first = error.errors(include_url=False)[0]
    param = _param(first["loc"])
    if first["loc"][0] in not_served:
        name = str(first["loc"][0])
        return BadRequest(
            f"{name} is not served here; leave it out", param=name, code="unsupported_parameter"
        )
    kind = first["type"]
    if kind == "missing":
        return _missing(param, f"{param} is missing; add it")
    if kind == "extra_forbidden":
        return BadRequest(f"{param} is unknown; leave it out", param=param, code="unknown_parameter")
    code = "unsupported_value" if kind == "literal_error" else "invalid_value"
    code = "invalid_type" if kind.endswith("_type") else code
    return BadRequest(_reason(param, first), param=param, code=code)


def _reason(param: str, complaint: ErrorDetails) -> str:
    said = complaint["msg"].replace("valid dictionary", "JSON object").replace(" after validation", "")
    given = complaint["input"]
    if isinstance(given, str | int | float) and complaint["type"] == "literal_error":
        said = f"{said}, not {str(given)[:LONGEST_VALUE]!r}"
    if said.startswith("Input should"):
        return param + said.removeprefix("Input")
    return f"{param}: {said[0].lower()}{said[1:]}"


def _param(location: Sequence[int | str]) -> str:
    """Return ``messages[0].role`` for ("messages", 0, "role"). Names of a union's branches, which begin with
    a parenthesis, are left out."""
    name = ""
    for step in location:
        if isinstance(step, int):
            name += f"[{step}]"
        elif not step.startswith(("(", "[")):
            name += f".{step}" if name else step
    return name[:LONGEST_NAME]

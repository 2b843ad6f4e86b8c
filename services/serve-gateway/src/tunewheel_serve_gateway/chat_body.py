"""The body of ``POST /v1/chat/completions``: what is validated, and what the OpenAPI document shows.

The part that reaches the engine is a closed list: engines also take parameters by which a client replaces the
chat template, overtakes others or generates without end. A field of null asks for nothing.

Source: OpenAI, "Create chat completion"; the bounds are those of vLLM where OpenAI names none.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, with_config
from typing_extensions import TypedDict

MOST_CHOICES = 16
"""Answers to one request; each costs as much as a request of its own."""
MOST_STOPS = 16
MOST_TOOLS = 128
MOST_BIASES = 1024
NAME = r"^[a-zA-Z0-9_-]{1,64}$"

# Clients send back whole messages that they were sent, with fields that say nothing (``refusal: null``).
_OPEN = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)
CLOSED = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)


def text_or(kind: type) -> Discriminator:
    """Tell a union's branches apart by type: ``kind``, or else text. An error of pydantic names the branch,
    and the brackets tell it from the names of fields."""
    return Discriminator(lambda value: "(other)" if isinstance(value, kind) else "(text)")


@with_config(_OPEN)
class TextPart(TypedDict):
    type: Literal["text"]
    """Images, sound and files are not served."""
    text: str


Content = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[TextPart], Field(min_length=1, fail_fast=True), Tag("(other)")],
    text_or(list),
]


@with_config(_OPEN)
class CalledFunction(TypedDict):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str
    """JSON, as the model wrote it."""


@with_config(_OPEN)
class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


@with_config(_OPEN)
class Message(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: NotRequired[Content | None]
    """Text, or parts of type ``text``, which are joined. Only a message with ``tool_calls`` may have none."""
    tool_calls: NotRequired[Annotated[list[ToolCall], Field(max_length=MOST_TOOLS, fail_fast=True)] | None]
    """What the assistant called, in a message of role ``assistant``."""
    tool_call_id: NotRequired[str | None]
    """Which call a message of role ``tool`` answers."""


@with_config(CLOSED)
class StreamOptions(TypedDict, total=False):
    include_usage: bool | None
    """A last chunk without choices bears the usage."""
    include_obfuscation: bool | None
    """Taken; nothing here is obfuscated."""


@with_config(CLOSED)
class JsonSchema(TypedDict):
    name: Annotated[str, Field(pattern=NAME)]
    schema: NotRequired[dict[str, Any]]
    description: NotRequired[str | None]
    strict: NotRequired[bool | None]


@with_config(CLOSED)
class ResponseFormat(TypedDict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NotRequired[JsonSchema | None]
    """Goes with the type ``json_schema``."""


@with_config(CLOSED)
class Function(TypedDict):
    name: Annotated[str, Field(pattern=NAME)]
    description: NotRequired[str | None]
    parameters: NotRequired[dict[str, Any] | None]
    """A JSON Schema."""
    strict: NotRequired[bool | None]


@with_config(CLOSED)
class Tool(TypedDict):
    type: Literal["function"]
    function: Function


@with_config(CLOSED)
class FunctionName(TypedDict):
    name: Annotated[str, Field(pattern=NAME)]


@with_config(CLOSED)
class NamedTool(TypedDict):
    type: Literal["function"]
    function: FunctionName


Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]+$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MOST_BIASES),
]
"""By a token's number."""
Stop = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[str], Field(max_length=MOST_STOPS, fail_fast=True), Tag("(other)")],
    text_or(list),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("(text)")] | Annotated[NamedTool, Tag("(other)")],
    text_or(dict),
]


class PassedOn(TypedDict, total=False):
    """Parameters that reach the engine, as they are."""

    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    logit_bias: Biases | None
    logprobs: bool | None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None
    max_tokens: Annotated[int, Field(ge=1)] | None
    """The older name of ``max_completion_tokens``."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None
    parallel_tool_calls: bool | None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None
    response_format: ResponseFormat | None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None
    stop: Stop | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    tool_choice: ToolChoice | None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None
    top_k: Annotated[int, Field(ge=-1)] | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None


class WithoutEffect(TypedDict, total=False):
    """Parameters of OpenAI's that change no answer. They are taken, and end at the gateway."""

    metadata: Any
    prediction: Any
    prompt_cache_key: Any
    prompt_cache_retention: Any
    safety_identifier: str | None
    """As ``user``, where that is not given."""
    service_tier: Any
    store: Any
    user: str | None
    """Who asks, as the application calls them: the name under which an erasure finds the completion."""


class OwnParameters(TypedDict, total=False):
    """Parameters of the gateway's own."""

    retrieval: Literal["on", "off"] | None
    """Whether passages of the project's documents go into the prompt; else the project's spec says."""


class NotServed(TypedDict, total=False):
    """Parameters of OpenAI's that would change the answer: only the values that ask for nothing are taken."""

    audio: None
    function_call: Literal["none", "auto"] | None
    functions: Annotated[list[Any], Field(max_length=0)] | None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None
    reasoning_effort: Literal["none"] | None
    verbosity: Literal["medium"] | None
    web_search_options: None


@with_config(CLOSED)
class ChatBody(PassedOn, WithoutEffect, OwnParameters, NotServed, total=False):
    """A chat request."""

    model: Required[Annotated[str, Field(min_length=1)]]
    """A project, a model's id, ``<project>/champion``, ``<project>/challenger``, ``<project>/base`` or the
    name of a base."""
    messages: Required[Annotated[list[Message], Field(min_length=1, fail_fast=True)]]
    stream: bool | None
    stream_options: StreamOptions | None


PASSED_ON = frozenset(PassedOn.__annotations__)
WITHOUT_EFFECT = frozenset(WithoutEffect.__annotations__)
NOT_SERVED = frozenset(NotServed.__annotations__)
KNOWN = frozenset(ChatBody.__annotations__)
CHAT_BODY = TypeAdapter(ChatBody)

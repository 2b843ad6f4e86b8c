"""The body of ``POST /v1/chat/completions``: what is validated, and what the OpenAPI document shows.

Only the parameters in ``PassedOn`` reach the engine. Engines also accept parameters with which a client could
replace the chat template, raise its own priority or generate without end. A field that is null counts as
absent.

Source: OpenAI, "Create chat completion". Where OpenAI gives no bounds, vLLM's are used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, with_config
from typing_extensions import TypedDict

MOST_CHOICES = 16
"""Most answers to one request. Each answer costs as much as a request of its own."""
MOST_STOPS = 16
MOST_TOOLS = 128
MOST_BIASES = 1024
NAME = r"^[a-zA-Z0-9_-]{1,64}$"

# Clients send the assistant's messages back as they received them, with fields such as ``refusal: null``.
_OPEN = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)
CLOSED = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)


def text_or(kind: type) -> Discriminator:
    """Return what chooses a union's branch by the value's type: ``kind``, or else text.

    Pydantic's errors include the branch in the path of a field. The brackets mark it, so that ``_param`` can
    leave it out.
    """
    return Discriminator(lambda value: "(other)" if isinstance(value, kind) else "(text)")


@with_config(_OPEN)
class TextPart(TypedDict):
    type: Literal["text"]
    """Images, sound and files are not served."""
    text: str


@with_config(_OPEN)
class RefusalPart(TypedDict):
    """A part of an assistant's earlier message."""

    type: Literal["refusal"]
    refusal: str


def kind_of_part(part: Any) -> str:
    """Return the branch of a union of text and refusal."""
    return "(refusal)" if isinstance(part, dict) and part.get("type") == "refusal" else "(text)"


Part = Annotated[
    Annotated[TextPart, Tag("(text)")] | Annotated[RefusalPart, Tag("(refusal)")],
    Discriminator(kind_of_part),
]
Content = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[Part], Field(min_length=1, fail_fast=True), Tag("(other)")],
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
    """Text, or a list of parts of type ``text`` or ``refusal``, which are joined. It may be missing only in a
    message with ``tool_calls``, or of an assistant with ``refusal``."""
    refusal: NotRequired[str | None]
    """What the assistant said instead of an answer."""
    tool_calls: NotRequired[Annotated[list[ToolCall], Field(max_length=MOST_TOOLS, fail_fast=True)] | None]
    """The tools that the assistant called; only in a message of role ``assistant``."""
    tool_call_id: NotRequired[str | None]
    """The id of the call that a message of role ``tool`` answers."""


@with_config(CLOSED)
class StreamOptions(TypedDict, total=False):
    include_usage: bool | None
    """Send the usage in a last chunk, which has no choices."""
    include_obfuscation: bool | None
    """Accepted without effect: the gateway does not obfuscate streams."""


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
    """Needed with the type ``json_schema``, and only then."""


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
"""Bias by token id."""
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
    """Parameters that are passed to the engine unchanged."""

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
    """OpenAI's parameters that do not change the answer. They are accepted and not passed to the engine."""

    metadata: Any
    prediction: Any
    prompt_cache_key: Any
    prompt_cache_retention: Any
    safety_identifier: str | None
    """Used in place of ``user`` where ``user`` is missing."""
    service_tier: Any
    store: Any
    user: str | None
    """The application's id of the user who asks. An erasure finds the user's completions by this id."""


class OwnParameters(TypedDict, total=False):
    """The gateway's own parameters."""

    retrieval: Literal["on", "off"] | None
    """Whether passages of the project's documents are put into the prompt. Default: as the project's spec
    says."""


class NotServed(TypedDict, total=False):
    """OpenAI's parameters that would change the answer. Only values that have no effect are accepted."""

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
    """The name of a project, a model's id, ``<project>/champion``, ``<project>/challenger``,
    ``<project>/base`` or the name of a base model."""
    messages: Required[Annotated[list[Message], Field(min_length=1, fail_fast=True)]]
    stream: bool | None
    stream_options: StreamOptions | None


PASSED_ON = frozenset(PassedOn.__annotations__)
WITHOUT_EFFECT = frozenset(WithoutEffect.__annotations__)
NOT_SERVED = frozenset(NotServed.__annotations__)
CHAT_BODY = TypeAdapter(ChatBody)

"""The body of ``POST /v1/responses``. Source: OpenAI, "Create a model response"."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import (
    CLOSED,
    MOST_TOOLS,
    NAME,
    FunctionName,
    RefusalPart,
    StreamOptions,
    WithoutEffect,
    kind_of_part,
    text_or,
)

# Clients send items back as they received them, with fields such as ``id`` and ``status``.
_OPEN = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)


@with_config(_OPEN)
class InputText(TypedDict):
    type: Literal["input_text", "output_text", "text"]
    """Images, sound and files are not served."""
    text: str


Part = Annotated[
    Annotated[InputText, Tag("(text)")] | Annotated[RefusalPart, Tag("(refusal)")],
    Discriminator(kind_of_part),
]
Parts = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[Part], Field(min_length=1, fail_fast=True), Tag("(other)")],
    text_or(list),
]


@with_config(_OPEN)
class MessageItem(TypedDict):
    type: NotRequired[Literal["message"]]
    role: Literal["system", "developer", "user", "assistant"]
    content: Parts


@with_config(_OPEN)
class CallItem(TypedDict):
    """A function that the model called."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str
    """JSON, as the model wrote it."""


@with_config(_OPEN)
class OutputItem(TypedDict):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: Parts


def _kind_of_item(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return f"({kind})" if kind in ("function_call", "function_call_output") else "(message)"


Item = Annotated[
    Annotated[MessageItem, Tag("(message)")]
    | Annotated[CallItem, Tag("(function_call)")]
    | Annotated[OutputItem, Tag("(function_call_output)")],
    Discriminator(_kind_of_item),
]


@with_config(CLOSED)
class FunctionTool(TypedDict):
    type: Literal["function"]
    """OpenAI's own tools, such as web search, are not served."""
    name: Annotated[str, Field(pattern=NAME)]
    description: NotRequired[str | None]
    parameters: NotRequired[dict[str, Any] | None]
    """A JSON Schema."""
    strict: NotRequired[bool | None]


@with_config(CLOSED)
class NamedFunction(FunctionName):
    type: Literal["function"]


@with_config(CLOSED)
class TextFormat(TypedDict):
    type: Literal["text", "json_object", "json_schema"]
    name: NotRequired[Annotated[str, Field(pattern=NAME)]]
    schema: NotRequired[dict[str, Any]]
    """Needed, as ``name`` is, with the type ``json_schema``, and only then."""
    description: NotRequired[str | None]
    strict: NotRequired[bool | None]


@with_config(CLOSED)
class TextConfig(TypedDict):
    format: NotRequired[TextFormat | None]
    verbosity: NotRequired[Literal["medium"] | None]


@with_config(CLOSED)
class Reasoning(TypedDict):
    effort: NotRequired[Literal["none"] | None]
    summary: NotRequired[None]
    generate_summary: NotRequired[None]


class NotServed(TypedDict, total=False):
    """OpenAI's parameters that would change the answer. Only values that have no effect are accepted."""

    background: Literal[False] | None
    context_management: Annotated[list[Any], Field(max_length=0)] | None
    include: Annotated[list[Literal["reasoning.encrypted_content"]], Field(fail_fast=True)] | None
    max_tool_calls: None
    moderation: None
    prompt: None
    reasoning: Reasoning | None
    truncation: Literal["disabled"] | None


class Stored(TypedDict, total=False):
    """OpenAI's parameters that refer to stored answers. No answer is stored."""

    conversation: None
    previous_response_id: None


@with_config(CLOSED)
class ResponsesBody(WithoutEffect, NotServed, Stored, total=False):
    """A request for a response. ``store`` is always taken for false."""

    model: Required[Annotated[str, Field(min_length=1)]]
    """As in a chat request."""
    input: Required[
        Annotated[
            Annotated[str, Field(min_length=1), Tag("(text)")]
            | Annotated[list[Item], Field(min_length=1, fail_fast=True), Tag("(other)")],
            text_or(list),
        ]
    ]
    """A text, which is a message of the user, or messages, calls of functions and their outputs."""
    instructions: str | None
    """The system prompt. It takes the place of the project's."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None
    parallel_tool_calls: bool | None
    retrieval: Literal["on", "off"] | None
    """Whether passages of the project's documents are put into the prompt. Default: as the project's spec
    says."""
    stream: bool | None
    stream_options: StreamOptions | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    text: TextConfig | None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("(text)")]
            | Annotated[NamedFunction, Tag("(other)")],
            text_or(dict),
        ]
        | None
    )
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS, fail_fast=True)] | None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None

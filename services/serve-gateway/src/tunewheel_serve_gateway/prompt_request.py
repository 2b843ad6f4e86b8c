"""``POST /v1/completions``: the prompt is one message of a user. The project's system prompt is not added."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any, Literal, Required

from pydantic import Field, Tag, TypeAdapter, with_config
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import (
    CLOSED,
    MOST_CHOICES,
    Biases,
    ResponseFormat,
    Stop,
    StreamOptions,
    WithoutEffect,
    text_or,
)
from tunewheel_serve_gateway.chat_request import ChatRequest, Words
from tunewheel_serve_gateway.forms import PROMPT

Prompt = Annotated[
    Annotated[str, Field(min_length=1), Tag("(text)")]
    | Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=1, fail_fast=True),
        Tag("(other)"),
    ],
    text_or(list),
]


class _NotServed(TypedDict, total=False):
    """OpenAI's parameters that would change the answer. Only values that have no effect are accepted."""

    best_of: Literal[1] | None
    echo: Literal[False] | None
    logprobs: None
    suffix: None


@with_config(CLOSED)
class PromptBody(WithoutEffect, _NotServed, total=False):
    """A request for the answer to a prompt."""

    model: Required[Annotated[str, Field(min_length=1)]]
    """As in a chat request."""
    prompt: Required[Prompt]
    """One text, or a list with one text. Lists of token ids are not accepted."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    logit_bias: Biases | None
    max_tokens: Annotated[int, Field(ge=1)] | None
    """Default: the project's limit, not OpenAI's 16."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None
    response_format: ResponseFormat | None
    """Default: the project's output schema. ``{"type": "text"}`` leaves the answer free."""
    retrieval: Literal["on", "off"] | None
    """Whether passages of the project's documents are put into the prompt. Default: ``off``."""
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None
    stop: Stop | None
    stream: bool | None
    stream_options: StreamOptions | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_k: Annotated[int, Field(ge=-1)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None


WORDS = Words(TypeAdapter(PromptBody), frozenset(_NotServed.__annotations__), {"messages": "prompt"})


def parse_prompt_request(raw: bytes, tolerated: Collection[str] = ()) -> ChatRequest:
    """Read a request body. Raises BadRequest: ``param`` names the field that is wrong."""
    body, dropped = WORDS.read(raw, tolerated)
    prompt = body.pop("prompt")
    chat: dict[str, Any] = {
        "retrieval": "off",
        **{name: value for name, value in body.items() if name not in _NotServed.__annotations__},
        "messages": [{"role": "user", "content": prompt if isinstance(prompt, str) else prompt[0]}],
    }
    return replace(WORDS.request(chat, len(raw), dropped), form=PROMPT, is_bare=True)

"""Turns a client's messages or text into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tunewheel_basemodel.chat import render, with_variables
from tunewheel_basemodel.errors import InvalidChat

from tunewheel_engine.errors import Refused
from tunewheel_engine.tool_calls import describe_in_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_tokens(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] = MappingProxyType({}),
) -> list[int]:
    """Return the tokens of the chat up to the beginning of the assistant's answer.

    ``tools``: functions in OpenAI's form. A chat template that supports tools renders tools, calls and
    results by itself; for others they are described in text. ``variables``: of the template. Raises Refused.
    """
    if "tools" not in str(tokenizer.chat_template):
        messages, tools = describe_in_text(messages, tools), ()
    try:
        text = render(with_variables(tokenizer, variables), messages, True, tools=tools)
    except InvalidChat as error:
        raise Refused(error.reason, param="messages") from error
    return tokenizer(text, add_special_tokens=False).input_ids


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str, *, param: str) -> list[int]:
    """Return the tokens of a plain prompt, with the special tokens that the tokenizer adds. Raises
    Refused."""
    tokens: list[int] = tokenizer(text).input_ids
    if not tokens:
        raise Refused(f"{param} is empty; give some text", param=param)
    return tokens


def known_tokens(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[int]:
    """Return ``tokens`` unchanged. Raises Refused when the vocabulary lacks one of them."""
    if not tokens or not all(0 <= token < len(tokenizer) for token in tokens):
        raise Refused(f"prompt must hold token ids from 0 to {len(tokenizer) - 1}", param="prompt")
    return tokens


def room(
    prompt: Sequence[int],
    asked: int | None,
    *,
    default: int | None,
    limit: int,
    param: str,
    prompt_param: str,
) -> int:
    """Return how many tokens may be generated after ``prompt``. ``default`` None: as many as fit.

    Raises Refused when the prompt is too long, or ``asked`` tokens do not fit behind it.
    """
    left = limit - len(prompt)
    if left < 1:
        raise Refused(
            f"the prompt has {len(prompt)} tokens; with the answer, {limit} are the limit; shorten it",
            param=prompt_param,
            code="context_length_exceeded",
        )
    if asked is not None and asked > left:
        raise Refused(
            f"{param}={asked} does not fit after a prompt of {len(prompt)} tokens in a context of {limit}; "
            f"ask for at most {left}",
            param=param,
            code="context_length_exceeded",
        )
    return asked if asked is not None else min(default or left, left)

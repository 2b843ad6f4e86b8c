"""Renders chat messages by the model's own template, and finds the tokens that the assistant wrote."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.dataset import ExampleFormat

from tunewheel_basemodel.errors import InvalidChat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
_DAY = {"%d": "01", "%-d": "1", "%e": "1", "%b": "Jan", "%B": "January", "%m": "01", "%Y": "2026", "%y": "26",
        "%A": "Thursday", "%a": "Thu", "%F": "2026-01-01", "%H": "00", "%M": "00", "%S": "00"}  # fmt: skip
"""The day that templates with ``strftime_now`` (Llama 3, gpt-oss) see, by what they ask for. With the day of
each call, a run that goes on after midnight would train other tokens, and a model would be served with others
than it was judged with."""
_MACRO = "".join(
    ("{% macro strftime_now(format) %}{{ format",
     *(f" | replace('{asked}', '{told}')" for asked, told in _DAY.items()), " }}{% endmacro %}\n")
)  # fmt: skip
_FIXED = {"strftime_now": _MACRO} | {
    name: f"{{% set {name} = undefined %}}\n" for name in ("date_string", "datetime")
}
"""What fixes the day, by what a template asks for. llama.cpp gives two variables the day of its clock."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    add_generation_prompt: bool,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return ``messages`` as text, rendered by the tokenizer's chat template. Raises InvalidChat.

    ``tools``: functions in OpenAI's form, for templates that support them. Encode the result with
    ``add_special_tokens=False``, because the template writes the special tokens itself.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InvalidChat("this model has no chat template; use an instruct model, or plain completions")
    if not messages:
        raise InvalidChat("at least one message is needed")
    try:
        text = on_one_day(tokenizer).apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise InvalidChat(f"the model's chat template refuses them ({error}); check the roles") from error
    return str(text)


def on_one_day(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose chat template has a fixed day, also where the caller names another. A template
    that asks for none is not changed."""
    own = tokenizer.chat_template
    if not isinstance(own, str):
        return tokenizer
    head = "".join(text for name, text in _FIXED.items() if name in own)
    if own.startswith(head):
        return tokenizer
    same = copy.copy(tokenizer)
    same.chat_template = head + own
    return same


def with_variables(
    tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, bool | float | str]
) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose chat template always has ``variables``, as if each call of
    ``apply_chat_template`` named them. Without variables it is ``tokenizer`` itself.

    They are set at the head of the template, so that no code which renders can forget them.
    """
    if not variables or not tokenizer.chat_template:
        return tokenizer
    head = "".join(
        f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}"
        for name, value in sorted(variables.items())
    )
    # Jinja drops one line break behind a block. So the template itself still begins a line.
    head += "\n"
    own, same = tokenizer.chat_template, copy.copy(tokenizer)
    same.chat_template = (
        {name: head + text for name, text in own.items()} if isinstance(own, dict) else head + own
    )
    return same


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> tuple[list[int], list[int]]:
    """Return the token ids of a whole conversation, and a mask of equal length with 1 for the assistant's
    tokens.

    The mask covers each assistant message and the token that ends its turn. It does not cover the header
    before the message or the white space after it. If a template ends turns with text in place of a token,
    that text is not covered.

    Most templates have no ``{% generation %}`` markers. So the spans are found by comparing renderings; see
    ``_content_span``. The tokenizer must provide offsets. Raises InvalidChat.
    """
    text = render(tokenizer, messages, False)
    spans = [
        _assistant_span(tokenizer, messages, index, text)
        for index, message in enumerate(messages)
        if message.get("role") == "assistant"
    ]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    mask = [
        int(any(begin < end and start < end and begin < stop for start, stop in spans))
        for begin, end in encoded["offset_mapping"]
    ]
    return ids, mask


def encode_row(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the token ids of a training row, and a mask of equal length with 1 for the tokens that have a
    loss: those of the last answer; in general data, those of every answer. Raises InvalidChat."""
    ids, mask = encode_chat(tokenizer, row["messages"])
    return ids, mask if row.get("format") == ExampleFormat.REPLAY else last_answer(mask)


def pieces(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[str]:
    """Return the text of each token of ``encode_chat``. Of the tokens that are one character together, the
    first has it and the others are empty. Raises InvalidChat."""
    text = render(tokenizer, messages, False)
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found, shown = list[str](), 0
    for begin, end in spans:
        found.append(text[max(begin, shown) : end])
        shown = max(shown, end)
    return found


def last_answer(mask: Sequence[int]) -> list[int]:
    """Return the ``mask`` of ``encode_chat`` with only the last answer. Earlier answers of the thread were
    not validated, so the model should not learn them."""
    end = len(mask) - next((place for place, one in enumerate(reversed(mask)) if one), len(mask))
    start = end
    while start and mask[start - 1]:
        start -= 1
    return [int(start <= place < end) for place in range(len(mask))]


def _assistant_span(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, text: str
) -> tuple[int, int]:
    """Return the half-open range of characters of ``text`` that the model learns to write from message
    ``index``."""
    start, stop = _content_span(tokenizer, messages, index, text)
    if index > 0:
        header = render(tokenizer, messages[:index], True)
        # Text between header and content (an empty think block) must be written by the model too.
        if text.startswith(header) and len(header) <= start:
            start = len(header)
    return start, stop + len(_end_of_turn(tokenizer, messages, index, text[stop:]))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, after: str) -> str:
    """Return the part of ``after``, the text behind the content of message ``index``, that ends the message.

    It is ``eos_token``, or the template's own end (Gemma's ``<end_of_turn>``), with white space that the
    template writes before it (Llama 2). It does not include the beginning of the next message.
    """
    eos = str(tokenizer.eos_token or "")
    if eos and after.startswith(eos):
        return eos
    token_at = after.lstrip()
    gap = after[: len(after) - len(token_at)]
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = (token for token in (*special, eos) if token and token_at.startswith(token))
    found = max(tokens, key=len, default="")
    if found and index + 1 < len(messages):
        alone = render(tokenizer, messages[: index + 1], False)
        found = found if alone.rstrip().endswith(found) else ""
    return gap + found if found else ""


def _content_span(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, text: str
) -> tuple[int, int]:
    """Return the range of message ``index``'s content in ``text``. It is found by rendering the content with
    marks around it, and comparing."""
    content = messages[index].get("content")
    if not isinstance(content, str) or not content.strip():
        raise InvalidChat(f"message {index} (assistant) has no text; give it content or leave it out")
    mark = next(letter for letter in "\u2042\u203b\u2051" if letter not in text)
    marked = render(tokenizer, _with_content(messages, index, f"{mark}{content}{mark}"), False)
    before, _, rest = marked.partition(mark)
    _, _, after = rest.rpartition(mark)
    # A template that trims the content trims nothing inside the marks, so the text around them is the same.
    same_around = text.startswith(before) and text.endswith(after) and len(before) + len(after) < len(text)
    if marked.count(mark) != 2 or not same_around:
        raise InvalidChat(f"the chat template rewrites message {index} (assistant); give it as plain text")
    return len(before), len(text) - len(after)


def _with_content(messages: Messages, index: int, content: str) -> list[dict[str, Any]]:
    changed = [dict(message) for message in messages]
    changed[index]["content"] = content
    return changed

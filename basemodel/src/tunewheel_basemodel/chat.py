"""Chat messages as the model's own template writes them, and which of their tokens the assistant wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_basemodel.errors import InvalidChat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    add_generation_prompt: bool,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """``messages`` as text by the tokenizer's chat template. Raises InvalidChat.

    ``tools`` are functions in OpenAI's form, for templates that describe them to the model. Encode the result
    with ``add_special_tokens=False``: the template writes the special tokens itself.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InvalidChat("this model has no chat template; use an instruct model, or plain completions")
    if not messages:
        raise InvalidChat("at least one message is needed")
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise InvalidChat(f"the model's chat template refuses them ({error}); check the roles") from error
    return str(text)


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> tuple[list[int], list[int]]:
    """Token ids of a whole conversation and, of equal length, 1 where the assistant wrote the token.

    The mask covers each assistant message and the token that ends its turn, not the header before it nor
    the white space after it. Where a template ends turns with text, nothing of that is covered.
    Templates without ``{% generation %}`` markers tell nothing about that, so
    the spans are found by comparing renderings (see ``_content_span``). Needs a tokenizer with offsets.
    Raises InvalidChat.
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


def last_answer(mask: Sequence[int]) -> list[int]:
    """Return the ``mask`` of ``encode_chat`` without the turns before the answer: they are what was said in
    the thread, and nobody vouches for them."""
    end = len(mask) - next((place for place, one in enumerate(reversed(mask)) if one), len(mask))
    start = end
    while start and mask[start - 1]:
        start -= 1
    return [int(start <= place < end) for place in range(len(mask))]


def _assistant_span(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, text: str
) -> tuple[int, int]:
    """Half-open range of characters of ``text`` that message ``index`` makes the model learn to write."""
    start, stop = _content_span(tokenizer, messages, index, text)
    if index > 0:
        header = render(tokenizer, messages[:index], True)
        # What a template puts between header and content (an empty think block) is the model's to write.
        if text.startswith(header) and len(header) <= start:
            start = len(header)
    return start, stop + len(_end_of_turn(tokenizer, messages, index, text[stop:]))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, messages: Messages, index: int, after: str) -> str:
    """What ends message ``index``, of ``after``, which stands behind its content: ``eos_token``, or what the
    template has in its place (Gemma's ``<end_of_turn>``), with the white space that a template writes before
    it (Llama 2); not what opens the next message."""
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
    """Where message ``index``'s content stands in ``text``: what changes when something is put around it."""
    content = messages[index].get("content")
    if not isinstance(content, str) or not content.strip():
        raise InvalidChat(f"message {index} (assistant) has no text; give it content or leave it out")
    mark = next(letter for letter in "\u2042\u203b\u2051" if letter not in text)
    marked = render(tokenizer, _with_content(messages, index, f"{mark}{content}{mark}"), False)
    before, _, rest = marked.partition(mark)
    _, _, after = rest.rpartition(mark)
    # A template that trims the content trims nothing between the marks, and leaves both sides as they were.
    same_around = text.startswith(before) and text.endswith(after) and len(before) + len(after) < len(text)
    if marked.count(mark) != 2 or not same_around:
        raise InvalidChat(f"the chat template rewrites message {index} (assistant); give it as plain text")
    return len(before), len(text) - len(after)


def _with_content(messages: Messages, index: int, content: str) -> list[dict[str, Any]]:
    changed = [dict(message) for message in messages]
    changed[index]["content"] = content
    return changed

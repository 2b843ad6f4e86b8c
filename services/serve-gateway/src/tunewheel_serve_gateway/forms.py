"""How an answer is written for the endpoint that was asked. Engines answer in the form of chat."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Protocol

import orjson
from typing_extensions import TypedDict

from tunewheel_serve_gateway.upstream.sse import DONE, as_event


class Answered(TypedDict):
    """``id`` is the completion's, to be sent with feedback. ``model`` is the model that answered; the request
    may have named a project or an alias. ``choices`` are as OpenAI describes them."""

    id: str
    created: NotRequired[int]
    model: str
    choices: list[dict[str, Any]]
    usage: NotRequired[dict[str, Any] | None]


class ChatCompletion(Answered):
    """A whole answer."""

    object: Literal["chat.completion"]


class ChatCompletionChunk(Answered):
    """One event of a stream, which ends with ``data: [DONE]``, or with an ``Error``."""

    object: Literal["chat.completion.chunk"]


class PromptCompletion(Answered):
    """The answer to a prompt, whole or one event of a stream."""

    object: Literal["text_completion"]


class Form(Protocol):
    """Writes the answer to one request."""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a whole ``chat.completion`` in this form."""
        ...

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """Return a ``chat.completion.chunk`` as events of this form."""
        ...

    def end(self) -> bytes:
        """Return the last events of a whole stream."""
        ...


class ChatForm:
    """The form of ``/v1/chat/completions``."""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer

    def piece(self, chunk: dict[str, Any]) -> bytes:
        return as_event(orjson.dumps(chunk))

    def end(self) -> bytes:
        return as_event(DONE)


class PromptForm(ChatForm):
    """The form of ``/v1/completions``."""

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        choices = [self._choice(one, one.get("message") or {}) for one in answer["choices"]]
        return {**answer, "object": "text_completion", "choices": choices}

    def piece(self, chunk: dict[str, Any]) -> bytes:
        choices = [self._choice(one, one.get("delta") or {}) for one in chunk.get("choices") or ()]
        return super().piece({**chunk, "object": "text_completion", "choices": choices})

    def _choice(self, choice: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
        return {
            "text": said.get("content") or "",
            "index": choice.get("index", 0),
            "logprobs": None,
            "finish_reason": choice.get("finish_reason"),
        }


CHAT = ChatForm()
PROMPT = PromptForm()

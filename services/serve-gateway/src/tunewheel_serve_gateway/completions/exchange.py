"""One answered request, as it is remembered and published."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.fields import SourceId
from tunewheel_contracts.formats.serving import Fault, RouteRole

from tunewheel_serve_gateway.chat_request import Messages, text_of_calls
from tunewheel_serve_gateway.retrieval.retrieved import Retrieved

_SOURCE_ID = TypeAdapter[SourceId](SourceId)
OVERHEAD_BYTES = 512
MESSAGE_BYTES = 64
"""Of a message beside its text: the pair, and the reference to it."""


@dataclass(slots=True)
class Exchange:
    """A plain object, filled in on the hot path; turned into an event off it."""

    project: str
    completion_id: str
    model_id: str
    role: RouteRole
    messages: Messages
    pinned: bool = False
    shadow_of: str | None = None
    client: str | None = None
    user: str | None = None
    """As the client calls whoever asked."""
    streamed: bool = False
    overrides: tuple[str, ...] = ()
    """What of the project's own the client replaced: see ``overrides``."""
    retrieved: Retrieved | None = None
    """The passages that the model was shown beside the messages."""
    trace: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Headers that carry the request's trace on; none where nothing is traced."""
    output: str = ""
    finish_reason: str = ""
    error: str | None = None
    fault: Fault | None = None
    error_is_ours: bool = False
    """The gateway's own words, in which nothing of the request stands."""
    cancelled: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_seconds: float = 0.0
    first_token_seconds: float | None = None
    queue_seconds: float | None = None
    completed_at: float = 0.0
    """Unix seconds; 0 until it is finished."""
    _parts: list[str] = field(default_factory=list[str])
    _calls: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    """Tool calls of a stream, by their index."""
    _pieces: int = 0
    """Of every answer of a stream, also those that the log does not tell."""
    _size: int = field(default=0, compare=False)

    @property
    def size_bytes(self) -> int:
        """About what it holds in memory once it is finished. It is the same whenever it is asked for, so that
        what was added to a sum can be taken from it."""
        if not self._size:
            self._size = OVERHEAD_BYTES + sum(map(getsizeof, self._texts()))
            self._size += MESSAGE_BYTES * len(self.messages)
        return self._size

    def _texts(self) -> Iterator[str | None]:
        """Every text whose length a client or an engine decides."""
        yield from (self.user, self.output, self.finish_reason, self.error)
        yield self.retrieved.context if self.retrieved is not None else None
        yield from (content for _, content in self.messages)

    @property
    def said_tokens(self) -> int:
        """About how many tokens were answered, also where the engine did not come to count them: most send
        one with each piece."""
        return self.completion_tokens or self._pieces or -(-len(self.output) // 4)

    @property
    def customer(self) -> str | None:
        """Who asked; None too where the client calls them by what no event can hold."""
        try:
            return _SOURCE_ID.validate_python(self.user)
        except ValidationError:
            return None

    def take(self, answer: dict[str, Any]) -> None:
        """Take over a whole ``chat.completion``."""
        choices = answer.get("choices") or [{}]
        message = choices[0].get("message") or {}
        self.output = message.get("content") or text_of_calls(message.get("tool_calls"))
        self.finish_reason = choices[0].get("finish_reason") or ""
        self._take_usage(answer.get("usage"))

    def take_chunk(self, chunk: dict[str, Any]) -> bool:
        """Take over one ``chat.completion.chunk``; True where it brought text."""
        self._take_usage(chunk.get("usage"))
        before = self._pieces
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text, calls = delta.get("content"), delta.get("tool_calls")
            self._pieces += bool(text or calls)
            if choice.get("index"):
                continue  # of several answers the log tells the first
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if text:
                self._parts.append(text)
            for call in calls or ():
                self._take_call(call)
        return self._pieces > before

    def _take_call(self, piece: dict[str, Any]) -> None:
        """Take over one piece of a tool call: the first one names the function, the others go on with what it
        is called with."""
        call = self._calls.setdefault(piece.get("index") or 0, {"function": {"arguments": ""}})
        function = piece.get("function") or {}
        for name in ("id", "type"):
            if piece.get(name):
                call[name] = piece[name]
        if function.get("name"):
            call["function"]["name"] = function["name"]
        call["function"]["arguments"] += function.get("arguments") or ""

    def fail(self, error: str, fault: Fault, *, ours: bool = False) -> None:
        """Note that no answer came; ``ours``: ``error`` holds nothing that the engine was told."""
        self.error, self.fault, self.error_is_ours = error, fault, ours
        self.finish_reason = "error"

    def cancel(self) -> None:
        """Note that the client left before it had the whole answer."""
        self.cancelled = True
        self.finish_reason = "cancelled"

    def finish(self, latency_seconds: float) -> None:
        self.output = self.output or "".join(self._parts) or text_of_calls([*self._calls.values()])
        self._calls.clear()
        self._parts.clear()
        self.latency_seconds = latency_seconds
        self.completed_at = time.time()

    def _take_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self.prompt_tokens = usage.get("prompt_tokens") or 0
            self.completion_tokens = usage.get("completion_tokens") or 0

"""One request and its answer, as they are logged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any

from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.events.production import ABSTAINED
from tunewheel_contracts.fields import JsonObject, SourceId
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_contracts.formats.serving import Fault, RouteRole

from tunewheel_serve_gateway.chat_request import Messages, text_of_calls
from tunewheel_serve_gateway.retrieval.retrieved import Retrieved

_SOURCE_ID = TypeAdapter[SourceId](SourceId)
OVERHEAD_BYTES = 512
TOKEN_BYTES = 200
"""Memory that a token takes with its log-probability."""
MESSAGE_BYTES = 64
"""Memory that a message takes beside its text: the pair and the reference to it."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer. The hot path fills it in; a writer thread turns it into an event."""

    project: str
    completion_id: str
    model_id: str
    role: RouteRole
    messages: Messages
    pinned: bool = False
    shadow_of: str | None = None
    client: str | None = None
    user: str | None = None
    """The client's id of the user who asked."""
    streamed: bool = False
    overrides: tuple[str, ...] = ()
    """Names of the project's settings that the client replaced; see ``overrides``."""
    schema: JsonObject | None = None
    """The output schema that the answer is held to; None: the project's present one, if it has one."""
    retrieved: Retrieved | None = None
    """The passages that were put into the prompt."""
    is_sampled: bool = False
    """Whether the confidence of the answer is recorded."""
    shows_logprobs: bool = True
    """Whether the client asked for log-probabilities."""
    is_held: bool = False
    """Whether the answer is sent only if the model is sure enough of it."""
    certainty: float | None = None
    """The calibrated confidence in a held answer; None: it is not held, or no engine gave it."""
    abstained: bool = False
    refusal: str = ""
    """What the client is told in place of an answer that was not sent."""
    withheld: Exchange | None = None
    """The answer in whose place this one is sent."""
    answered_by: str | None = None
    """The completion that was sent in place of this answer."""
    confidence: Confidence | None = None
    """Of an answer that was not sent. That of others is measured when they are logged."""
    trace: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Trace headers of the request; empty where tracing is off."""
    output: str = ""
    finish_reason: str = ""
    error: str | None = None
    fault: Fault | None = None
    error_is_ours: bool = False
    """Whether the gateway wrote ``error`` itself, so that it cannot quote the request."""
    cancelled: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_seconds: float = 0.0
    first_token_seconds: float | None = None
    queue_seconds: float | None = None
    completed_at: float = 0.0
    """Unix seconds; 0 until ``finish`` was called."""
    scored: list[tuple[Any, float]] = field(default_factory=list[tuple[Any, float]])
    """The tokens of a sampled answer (UTF-8 bytes or text, as the engine wrote them), and their
    log-probabilities."""
    _parts: list[str] = field(default_factory=list[str])
    _calls: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    """Tool calls of a stream, by their index."""
    _pieces: int = 0
    """Number of chunks with text or tool calls, of all answers of a stream. Only the first answer is
    logged."""
    _size: int = field(default=0, compare=False)

    @property
    def size_bytes(self) -> int:
        """Estimated memory of the finished exchange, in bytes. The first value is kept, so that the same
        number is added to a sum and later subtracted."""
        if not self._size:
            self._size = OVERHEAD_BYTES + sum(map(getsizeof, self._texts()))
            self._size += MESSAGE_BYTES * len(self.messages) + TOKEN_BYTES * len(self.scored)
        return self._size

    def _texts(self) -> Iterator[str | None]:
        """Every text whose length a client or an engine decides."""
        yield from (self.user, self.output, self.finish_reason, self.error)
        yield self.retrieved.context if self.retrieved is not None else None
        yield from (content for _, content in self.messages)

    @property
    def said_tokens(self) -> int:
        """Number of output tokens. Where the engine did not send its count, the number of chunks is the
        estimate, since most engines send one token per chunk."""
        return self.completion_tokens or self._pieces or -(-len(self.output) // 4)

    @property
    def customer(self) -> str | None:
        """The user who asked; None where there is none, or where the client's id is no valid ``SourceId``."""
        try:
            return source_id(self.user)
        except ValidationError:
            return None

    @property
    def said(self) -> str:
        """The text so far."""
        return self.output or "".join(self._parts)

    def abstain(self, found: Confidence | None, refusal: str) -> None:
        """Note that the answer, of which the model is as sure as ``found`` says, is not sent, but
        ``refusal``. Its text is dropped: nobody may rate it, or learn from it, as an answer."""
        self.abstained, self.confidence, self.refusal = True, found, refusal
        self.overrides = (*self.overrides, ABSTAINED)
        self.output, self.finish_reason = "", "stop"
        self._parts.clear()
        self._calls.clear()
        self.scored.clear()

    def take(self, answer: dict[str, Any]) -> None:
        """Take over a whole ``chat.completion``."""
        choices = answer.get("choices") or [{}]
        message = choices[0].get("message") or {}
        self.output = message.get("content") or text_of_calls(message.get("tool_calls"))
        self.finish_reason = _reason(choices[0])
        for choice in choices:
            self._take_logprobs(choice)
        self._take_usage(answer.get("usage"))

    def take_chunk(self, chunk: dict[str, Any]) -> bool:
        """Take over one ``chat.completion.chunk``; return whether it brought text or a tool call."""
        self._take_usage(chunk.get("usage"))
        before = self._pieces
        for choice in chunk.get("choices") or ():
            self._take_logprobs(choice)
            delta = choice.get("delta") or {}
            text, calls = delta.get("content"), delta.get("tool_calls")
            self._pieces += bool(text or calls)
            if choice.get("index"):
                continue  # Of several answers only the first is logged.
            self.finish_reason = _reason(choice) or self.finish_reason
            if text:
                self._parts.append(text)
            for call in calls or ():
                self._take_call(call)
        return self._pieces > before

    def _take_logprobs(self, choice: dict[str, Any]) -> None:
        """Take over the log-probabilities of a sampled answer, and remove them unless the client asked. The
        field is then the last one, whether or not the engine was asked: clients get the same bytes."""
        if self.is_sampled and not choice.get("index"):
            self.scored += _scored(choice.get("logprobs"))
        if not self.shows_logprobs:
            choice.pop("logprobs", None)
            choice["logprobs"] = None

    def _take_call(self, piece: dict[str, Any]) -> None:
        """Take over one piece of a tool call. The first piece names the function; the others continue its
        arguments."""
        call = self._calls.setdefault(piece.get("index") or 0, {"function": {"arguments": ""}})
        function = piece.get("function") or {}
        for name in ("id", "type"):
            if piece.get(name):
                call[name] = piece[name]
        if function.get("name"):
            call["function"]["name"] = function["name"]
        call["function"]["arguments"] += function.get("arguments") or ""

    def fail(self, error: str, fault: Fault, *, ours: bool = False) -> None:
        """Note that the request failed. ``ours``: the gateway wrote ``error``, so it quotes no request."""
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
            self.prompt_tokens = _count(usage.get("prompt_tokens"))
            self.completion_tokens = _count(usage.get("completion_tokens"))


def source_id(value: str | None) -> str | None:
    """Return ``value``. Raises ValidationError: it is no valid ``SourceId``."""
    return None if value is None else _SOURCE_ID.validate_python(value)


def _count(value: Any) -> int:
    """Return a number of tokens; 0 for what is none, which some engines write."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 53 else 0


def _reason(choice: dict[str, Any]) -> str:
    found = choice.get("finish_reason")
    return found if isinstance(found, str) else ""


def _scored(logprobs: Any) -> Iterator[tuple[Any, float]]:
    """Yield the tokens of OpenAI's ``logprobs``. What has another shape is left out: no answer fails for
    it."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    for one in content if isinstance(content, list) else ():
        value = one.get("logprob") if isinstance(one, dict) else None
        if isinstance(value, int | float):
            yield one.get("bytes") or one.get("token"), value

"""Writes the answer to ``POST /v1/responses``, whole or as events.

Source: OpenAI, "The response object" and "Streaming events". The events of a message, in their order:

    response.output_item.added
    response.content_part.added
    response.output_text.delta             one for each piece
    response.output_text.done
    response.content_part.done
    response.output_item.done

A refusal in place of a message has ``response.refusal.delta`` and ``.done``. The events of a call of a
function:

    response.output_item.added
    response.function_call_arguments.delta one for each piece
    response.function_call_arguments.done
    response.output_item.done

Before all of them come ``response.created`` and ``response.in_progress``. The last event is
``response.completed``, or ``response.incomplete`` for an answer that was cut off. A failure is the event
``{"error": …}`` without a type, as in a chat stream: OpenAI's clients raise it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import orjson
from typing_extensions import TypedDict

from tunewheel_serve_gateway.output_schema import VERDICT

REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is incomplete, by the engine's ``finish_reason``."""
ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
}
"""The request's fields that the response repeats, and their values where the request has none."""
Item = dict[str, Any]
KINDS = ("content", "refusal")
"""The fields of a chat message that hold its text."""


class Response(TypedDict):
    """A response, with items of type ``message`` or ``function_call``. The request's other fields are
    repeated."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[Item]
    store: Literal[False]
    usage: dict[str, Any] | None


class ResponsesForm:
    """Writes one answer. ``body``: the request."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._echo = {name: body.get(name, value) for name, value in ECHOED.items()}
        self._format = body.get("text", {}).get("format") or {"type": "text"}
        self._head: dict[str, Any] = {}
        self._items: list[Item] = []
        self._call: int | None = None
        """The index of the call that is being streamed; None: it is a message, or nothing."""
        self._reason: str | None = None
        self._verdict: dict[str, Any] = {}
        self._usage: Any = None
        self._events = b""
        self._number = 0

    def can_be_written(self) -> bool:
        """Return whether the fields that the response repeats can be written as deep as events hold them."""
        try:
            orjson.dumps({"response": {"text": {"format": self._format}, **self._echo}})
        except orjson.JSONEncodeError:  # orjson reads deeper nesting than it can write
            return False
        return True

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a whole ``chat.completion`` as a response."""
        self._head = answer
        choice = answer["choices"][0]
        message = choice["message"]
        for kind in KINDS:
            if message.get(kind):
                self._items.append(self._message(message[kind], kind))
        for call in message.get("tool_calls") or ():
            self._items.append(self._function_call(call))
        self._reason, self._usage = choice.get("finish_reason"), answer.get("usage")
        self._close_item()
        return self._response(done=True)

    def piece(self, chunk: dict[str, Any]) -> bytes:
        """Return a ``chat.completion.chunk`` as events."""
        if not self._head:
            self._head = chunk
            for name in ("created", "in_progress"):
                self._tell(name, response=self._response(done=False))
        self._usage = chunk.get("usage") or self._usage
        self._verdict = {VERDICT: chunk[VERDICT]} if VERDICT in chunk else self._verdict
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            for kind in KINDS:
                if delta.get(kind):
                    self._take_text(delta[kind], kind)
            for call in delta.get("tool_calls") or ():
                self._take_call(call)
            self._reason = choice.get("finish_reason") or self._reason
        return self._told()

    def end(self) -> bytes:
        """Return the last events of a whole stream."""
        self._end_item()
        self._tell(
            "incomplete" if self._reason in REASONS else "completed", response=self._response(done=True)
        )
        return self._told()

    def _take_text(self, text: str, kind: str) -> None:
        if self._call is not None or not self._is_open:
            self._begin(self._message("", kind))
            self._tell("content_part.added", **self._place(0), part=self._items[-1]["content"][0])
        part = self._items[-1]["content"][0]
        part[_text_in(part)] += text
        self._tell(f"{part['type']}.delta", **self._place(0), delta=text, **_logprobs_of(part))

    def _take_call(self, call: dict[str, Any]) -> None:
        index = call.get("index") or 0
        function = call.get("function") or {}
        if index != self._call or not self._is_open:
            self._begin(self._function_call({**call, "function": {**function, "arguments": ""}}))
            self._call = index
        if arguments := function.get("arguments"):
            self._items[-1]["arguments"] += arguments
            self._tell("function_call_arguments.delta", **self._place(), delta=arguments)

    @property
    def _is_open(self) -> bool:
        return bool(self._items) and self._items[-1]["status"] == "in_progress"

    def _begin(self, item: Item) -> None:
        """Begin an item, after the end of the one before."""
        self._end_item()
        self._items.append(item)
        self._call = None
        shown = {**item, "content": []} if item["type"] == "message" else item
        self._tell("output_item.added", output_index=len(self._items) - 1, item=shown)

    def _end_item(self) -> None:
        if not self._is_open:
            return
        self._close_item()
        item = self._items[-1]
        if item["type"] == "message":
            part = item["content"][0]
            said = {_text_in(part): part[_text_in(part)], **_logprobs_of(part)}
            self._tell(f"{part['type']}.done", **self._place(0), **said)
            self._tell("content_part.done", **self._place(0), part=part)
        else:
            told = {"name": item["name"], "arguments": item["arguments"]}
            self._tell("function_call_arguments.done", **self._place(), **told)
        self._tell("output_item.done", output_index=len(self._items) - 1, item=item)

    def _close_item(self) -> None:
        """Note that all items are whole, but for the last one of an answer that was cut off."""
        for item in self._items:
            item["status"] = "completed"
        if self._items and self._reason in REASONS:
            self._items[-1]["status"] = "incomplete"

    def _message(self, text: str, kind: str) -> Item:
        part: Item = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        if kind == "refusal":
            part = {"type": "refusal", "refusal": text}
        return {"type": "message", "role": "assistant", "content": [part], **self._named("msg")}

    def _function_call(self, call: dict[str, Any]) -> Item:
        function = call.get("function") or {}
        said = {"name": function.get("name") or "", "arguments": function.get("arguments") or ""}
        item = self._named("fc")
        return {"type": "function_call", "call_id": call.get("id") or item["id"], **said, **item}

    def _named(self, kind: str) -> dict[str, Any]:
        return {"id": f"{kind}_{self._head['id']}_{len(self._items)}", "status": "in_progress"}

    def _place(self, content_index: int | None = None) -> dict[str, Any]:
        """Return where the last item is. ``content_index``: of a part of it."""
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        return place if content_index is None else {**place, "content_index": content_index}

    def _response(self, *, done: bool) -> dict[str, Any]:
        reason = REASONS.get(self._reason or "")
        status = ("incomplete" if reason else "completed") if done else "in_progress"
        return {
            "id": self._head["id"],
            "object": "response",
            "created_at": self._head.get("created", 0),
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if done and reason else None,
            "model": self._head["model"],
            "output": self._items if done else [],
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "text": {"format": self._format},
            "truncation": "disabled",
            "usage": _usage_of(self._usage) if done else None,
            **self._echo,
            **(self._verdict if done else {}),
        }

    def _tell(self, kind: str, **fields: Any) -> None:
        name = f"response.{kind}"
        event = orjson.dumps({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        self._events += b"event: " + name.encode() + b"\ndata: " + event + b"\n\n"

    def _told(self) -> bytes:
        events, self._events = self._events, b""
        return events


def _text_in(part: Item) -> str:
    """Return the name of the field of ``part`` that has its text."""
    return "refusal" if part["type"] == "refusal" else "text"


def _logprobs_of(part: Item) -> dict[str, Any]:
    return {} if part["type"] == "refusal" else {"logprobs": []}


def _usage_of(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    prompt, answer = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + answer,
    }

"""Tool calls in the Hermes format: describes tools in the prompt, constrains calls, reads calls from the
text.

A call is ``<tool_call>{"name": …, "arguments": …}</tool_call>``. Qwen's chat templates use the same format.
Source: https://github.com/NousResearch/Hermes-Function-Calling.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_PROMPT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> \
XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@dataclass(frozen=True)
class ToolCall:
    """A call that the model wrote; ``arguments`` is the text of a JSON object."""

    id: str
    name: str
    arguments: str


def describe_in_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return ``messages`` for a chat template without support for tools.

    The functions are described in the system message. Calls become part of the assistant's text. Consecutive
    results are joined in one user message.
    """
    out: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            result = f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"
            if out and out[-1].get("holds_results"):
                out[-1]["content"] += "\n" + result
            else:
                out.append({"role": "user", "content": result, "holds_results": True})
        else:
            called = [_in_text(call["function"]) for call in message.get("tool_calls") or ()]
            text = message.get("content") or ""
            out.append({"role": message["role"], "content": "\n".join([*([text] if text else []), *called])})
    if tools:
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        described = _PROMPT.format(tools=lines)
        if out[0]["role"] in ("system", "developer"):
            out[0]["content"] = f"{out[0]['content']}\n\n{described}".lstrip()
        else:
            out.insert(0, {"role": "system", "content": described})
    return [{"role": message["role"], "content": message["content"]} for message in out]


def _in_text(function: Mapping[str, Any]) -> str:
    called = {"name": function["name"], "arguments": function["arguments"]}
    return f"{OPEN}\n{json.dumps(called, ensure_ascii=False)}\n{CLOSE}"


def calls_source(
    arguments: Mapping[str, str],
    *,
    several: bool,
    markers: tuple[str, str],
    answer: str | None = None,
    among_text: bool = False,
) -> str:
    """Return the Lark grammar of calls in the Hermes format.

    ``arguments``: the grammar of each function's arguments. ``markers``: the texts before and after a call,
    in Lark's syntax. ``answer``: a grammar of answers that are allowed in place of calls. ``among_text``: any
    text may come before and after calls, and there may be none; after a begin marker a valid call must
    follow.
    """
    begin, end = markers
    rules = [f"call: {' | '.join(f'call_{at}' for at in range(len(arguments)))}"]
    for at, (name, source) in enumerate(arguments.items()):
        head, tail = (json.dumps(text) for text in (f'\n{{"name": "{name}", "arguments": ', "}\n"))
        rules += [f"call_{at}: {head} args_{at} {tail} {end}", f"args_{at}: {source}"]
    if among_text:
        # A lazy rule ends at the first marker, so that the text itself cannot contain a marker.
        lazy = not begin.startswith("<")
        rules += ["TEXT: /(.|\\n)*/", f"begin{'[lazy]' if lazy else ''}: TEXT {begin}"]
        start = "(begin call)* TEXT" if several else "(begin call | TEXT)"
    else:
        begun = f"{begin} call"
        start = f'{begun} ("\\n" {begun}){{0,7}}' if several else begun
        if answer is not None:
            rules += [f"calls: {start}", f"answer: {answer}"]
            start = "calls | answer"
    return "\n".join(["%llguidance {}", f"start: {start}", *rules, ""])


class ToolCallReader:
    """Separates calls from text that arrives piece by piece.

    Text is returned once it cannot be the beginning of a call. A call is returned when it is complete. A call
    whose JSON is invalid, or whose function is not in ``names``, is returned as text.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._pending = ""
        self._inside = False
        self.calls = 0

    def feed(self, piece: str) -> list[str | ToolCall]:
        """Add ``piece``; return the text and the calls that are complete now, in their order."""
        self._pending += piece
        out: list[str | ToolCall] = []
        while True:
            if not self._inside:
                at = self._pending.find(OPEN)
                if at < 0:
                    return out + self._text(len(self._pending) - self._held())
                # White space before a call belongs to the call's format, not to the text.
                out += self._text(len(self._pending[:at].rstrip()))
                self._inside = True
            end = self._pending.find(CLOSE)
            if end < 0:
                return out
            out += self._take_call(end + len(CLOSE))

    def finish(self) -> list[str | ToolCall]:
        """Return the rest at the end of the answer. A call without its end marker counts if its JSON is
        complete."""
        if self._inside:
            return self._take_call(len(self._pending))
        rest, self._pending = self._pending, ""
        return [rest] if rest and not (self.calls and rest.isspace()) else []

    def _take_call(self, length: int) -> list[str | ToolCall]:
        raw, self._pending = self._pending[:length], self._pending[length:]
        self._inside = False
        call = self._read(raw.strip().removeprefix(OPEN).removesuffix(CLOSE))
        self.calls += call is not None
        return [raw if call is None else call]

    def _read(self, text: str) -> ToolCall | None:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict):
            return None
        name, arguments = content.get("name"), content.get("arguments", {})
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            return None
        return ToolCall(f"call_{uuid.uuid4().hex[:24]}", name, json.dumps(arguments, ensure_ascii=False))

    def _text(self, length: int) -> list[str | ToolCall]:
        out, self._pending = self._pending[:length], self._pending[length:]
        return [out] if out else []

    def _held(self) -> int:
        """Return the length of the end of the pending text that may belong to a call: white space and the
        beginning of a marker."""
        kept = self._pending
        for length in range(min(len(OPEN) - 1, len(kept)), 0, -1):
            if OPEN.startswith(kept[-length:]):
                kept = kept[:-length]
                break
        return len(self._pending) - len(kept.rstrip())

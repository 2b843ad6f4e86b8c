"""Writes the Modelfile with which Ollama serves a GGUF file as the model was trained.

Ollama renders prompts by a Go template, not by the model's own one in Jinja. The Go template here is made of
the texts that the Jinja template puts between messages, and is used only if it renders conversations alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tunewheel_basemodel.chat import render
from tunewheel_basemodel.errors import InvalidChat

_PROBES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
_GO = """{{- $before := "" -}}
{{- range .Messages -}}
{{- if eq .Role "system" }}{{ %(system)s }}{{ .Content }}
{{- else if eq .Role "assistant" }}{{ %(assistant)s }}{{ .Content }}
{{- else if eq $before "system" }}{{ %(after_system)s }}{{ .Content }}
{{- else if eq $before "assistant" }}{{ %(after_assistant)s }}{{ .Content }}
{{- else }}{{ %(first)s }}{{ .Content }}
{{- end -}}
{{- $before = .Role -}}
{{- end -}}
{{ %(last)s }}"""


@dataclass(frozen=True, slots=True)
class Turns:
    """The texts that a chat template writes around the messages of a conversation."""

    system: str
    """Before a system message, which comes first."""
    first: str
    """Before the question, if it comes first. A default system message is in here."""
    after_system: str
    after_assistant: str
    assistant: str
    """Between question and answer."""
    last: str
    """Between the last question and the answer that the model gives."""

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return what the Go template makes of ``messages``."""
        text, before = "", ""
        for message in messages:
            role = message["role"]
            after = {"system": self.after_system, "assistant": self.after_assistant}.get(before, self.first)
            text += {"system": self.system, "assistant": self.assistant}.get(role, after) + message["content"]
            before = role
        return text + self.last


def turns_of(tokenizer: Any, *, leave_out: str = "") -> Turns | None:
    """Return the turns of the tokenizer's chat template, or None if they depend on more than roles and order.

    ``leave_out``: what the engine writes at the beginning by itself, the BOS token.
    """

    def pieces(*roles: str) -> list[str]:
        text = render(tokenizer, _conversation(roles), True).removeprefix(leave_out)
        cut: list[str] = []
        for message in _conversation(roles):
            piece, _, text = text.partition(message["content"])
            cut.append(piece)
        return [*cut, text]

    try:
        first, assistant, after_assistant, last = pieces("user", "assistant", "user")
        system, after_system, _ = pieces("system", "user")
        found = Turns(system, first, after_system, after_assistant, assistant, last)
        same = all(
            found.rendered(_conversation(roles))
            == render(tokenizer, _conversation(roles), True).removeprefix(leave_out)
            for roles in _PROBES
        )
    except InvalidChat:
        return None
    return found if same else None


def _conversation(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"Text {number} of {role}."} for number, role in enumerate(roles)]


def modelfile(tokenizer: Any, file: str, *, leave_out: str = "", system: str | None = None) -> str:
    """Return the Modelfile for the GGUF file ``file`` beside it.

    ``system``: the system message that all training examples have; Ollama puts it before conversations that
    have none.
    """
    lines = [f"FROM ./{file}"]
    turns = turns_of(tokenizer, leave_out=leave_out)
    if turns is None:
        lines.append(
            "# The chat template has no equal in Go. Ollama chooses one by the template in the file."
        )
    else:
        quoted = {one.name: json.dumps(getattr(turns, one.name), ensure_ascii=False) for one in fields(turns)}
        lines.append(f'TEMPLATE """{_GO % quoted}"""')
        end = tokenizer(turns.after_assistant, add_special_tokens=False).input_ids[:1]
        if end and end[0] in tokenizer.all_special_ids:
            lines.append(f"PARAMETER stop {json.dumps(tokenizer.decode(end))}")
    if system is not None and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"

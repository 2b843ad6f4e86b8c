"""Writes the Modelfile with which Ollama serves a GGUF file as the model was trained.

Ollama renders prompts by a Go template, not by the model's own one in Jinja. The Go template here is made of
the texts that the Jinja template puts between messages, and is used only if it renders conversations alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
{{- $held := "" -}}
{{- range $at, $message := .Messages -}}
{{- if eq .Role "system" }}%(system)s
{{- else if eq .Role "assistant" }}{{ %(assistant)s }}{{ .Content }}
{{- else if eq $before "system" }}{{ %(after_system)s }}%(question)s
{{- else if eq $before "assistant" }}{{ %(after_assistant)s }}%(question)s
{{- else }}{{ %(first)s }}%(question)s
{{- end -}}
{{- $before = .Role -}}
{{- end -}}
{{ %(last)s }}"""
_SEND_SYSTEM = (
    "# A Modelfile cannot hold the system message of the training examples: send it with each request."
)
_REFUSED = '{{ index .Content "the chat template takes no system message" }}'
"""Go stops at it and shows it: a text has no place of such a name."""
_HELD = "{{ if and $held (eq (len (slice $.Messages $at)) 1) }}{{ $held }}{{ %s }}{{ end }}{{ .Content }}"


@dataclass(frozen=True, slots=True)
class Turns:
    """The texts that a chat template writes around the messages of a conversation."""

    system: str | None
    """Before a system message, which comes first. None: the template refuses system messages."""
    first: str
    """Before the question, if it comes first. A default system message is in here."""
    after_system: str
    after_assistant: str
    assistant: str
    """Between question and answer."""
    last: str
    """Between the last question and the answer that the model gives."""
    held: bool = False
    """The system message stands at the head of the last question, before ``after_system``."""

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return what the Go template makes of ``messages``. Raises InvalidChat."""
        text, before, held = "", "", ""
        for at, message in enumerate(messages):
            role, content = message["role"], message["content"]
            if role == "system" and self.system is None:
                raise InvalidChat("the chat template takes no system message")
            if role == "system" and self.held:
                held = content + self.after_system
                continue
            after = {"system": self.after_system, "assistant": self.after_assistant}.get(before, self.first)
            text += {"system": self.system or "", "assistant": self.assistant}.get(role, after)
            text += (held if at == len(messages) - 1 and role == "user" else "") + content
            before = role
        return text + self.last

    def in_go(self) -> str:
        """Return the Go template."""
        texts = [one.name for one in fields(self) if one.name != "held"]
        quoted = {name: _in_quotes(getattr(self, name) or "") for name in texts}
        quoted["question"] = "{{ .Content }}"
        if self.system is None:
            quoted["system"] = _REFUSED
        elif self.held:
            joint = quoted["after_system"]
            quoted |= {
                "system": "{{ $held = .Content }}",
                "after_system": quoted["first"],
                "question": _HELD % joint,
            }
        else:
            quoted["system"] = f"{{{{ {quoted['system']} }}}}{{{{ .Content }}}}"
        return _GO % quoted


def turns_of(tokenizer: Any, *, leave_out: str = "") -> Turns | None:
    """Return the turns of the tokenizer's chat template, or None if they depend on more than roles and order.

    ``leave_out``: what the engine writes at the beginning by itself, the BOS token.
    """

    def wanted(roles: Sequence[str]) -> str:
        return render(tokenizer, _conversation(roles), True).removeprefix(leave_out)

    def pieces(*roles: str) -> list[str]:
        text = wanted(roles)
        cut: list[str] = []
        for message in _conversation(roles):
            piece, _, text = text.partition(message["content"])
            cut.append(piece)
        return [*cut, text]

    def same(turns: Turns, probes: Sequence[Sequence[str]]) -> bool:
        return all(turns.rendered(_conversation(roles)) == wanted(roles) for roles in probes)

    try:
        first, assistant, after_assistant, last = pieces("user", "assistant", "user")
        system, after_system, _ = pieces("system", "user") if _takes_system(tokenizer) else (None, "", "")
        probes = [roles for roles in _PROBES if system is not None or "system" not in roles]
        found = Turns(system, first, after_system, after_assistant, assistant, last)
        both = (found, replace(found, held=True))
        return next((turns for turns in both if same(turns, probes)), None)
    except InvalidChat:
        return None


def _takes_system(tokenizer: Any) -> bool:
    try:
        return bool(render(tokenizer, _conversation(("system", "user")), True))
    except InvalidChat:
        return False


def _conversation(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"Text {number} of {role}."} for number, role in enumerate(roles)]


def modelfile(
    tokenizer: Any,
    file: str,
    *,
    leave_out: str = "",
    system: str | None = None,
    parameters: Mapping[str, float] = {},
) -> str:
    """Return the Modelfile for the GGUF file ``file`` beside it, with Ollama's ``parameters``.

    ``system``: the system message that answers were trained with; Ollama puts it before conversations that
    have none.
    """
    lines = [f"FROM ./{file}"]
    turns = turns_of(tokenizer, leave_out=leave_out)
    if turns is None:
        lines.append(
            "# The chat template has no equal in Go. Ollama chooses one by the template in the file."
        )
    else:
        lines.append(f'TEMPLATE """{turns.in_go()}"""')
        end = tokenizer(turns.after_assistant, add_special_tokens=False).input_ids[:1]
        if end and end[0] in tokenizer.all_special_ids and _holds(stop := tokenizer.decode(end)):
            lines.append(f'PARAMETER stop "{stop}"')
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    refused = turns is not None and turns.system is None
    if system is not None and not refused:
        lines.append(f'SYSTEM """{system}"""' if _holds(system) else _SEND_SYSTEM)
    return "\n".join(lines) + "\n"


def _holds(text: str) -> bool:
    """Return whether Ollama reads ``text`` from a Modelfile as it is: it knows no escapes, and drops what is
    not printed, such as spaces that do not break."""
    return '"""' not in text and all(sign.isprintable() or sign in "\n\t" for sign in text)


def _in_quotes(text: str) -> str:
    """Return ``text`` as a literal of Go, in which only printed signs stand as they are."""
    escaped = {"\n": r"\n", '"': r"\"", "\\": r"\\"}
    signs = (escaped.get(one) or (one if one.isprintable() else f"\\U{ord(one):08x}") for one in text)
    return f'"{"".join(signs)}"'

"""Makes examples of conversations: one for each answer, with the messages before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunewheel_contracts.identity import content_id

from tunewheel_cli.publishing.formats.form import Fields, LeftOut, Unfit

Role = Literal["system", "user", "assistant"]
BEFORE = "messages of the assistant before the first question"
_ROLES: dict[Role, tuple[str, ...]] = {
    "system": ("system", "developer"),
    "user": ("user", "human", "customer", "client", "prompter", "kunde", "patient"),
    "assistant": ("assistant", "gpt", "chatgpt", "model", "bot", "agent", "support", "expert", "berater"),
}
ROLES: dict[str, Role] = {name: role for role, names in _ROLES.items() for name in names}
TOOLS = frozenset({"tool", "function", "function_call", "tool_call", "observation", "ipython"})
SPEAKERS, TEXTS = ("role", "from", "speaker", "author"), ("content", "value", "text", "message")


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str
    learnt: bool = True
    """Whether an answer is learnt; otherwise it only stands before later ones."""


def turn_of(message: Any, where: str, left: LeftOut) -> Turn | None:
    """Read one message of ``{role, content}`` or ``{from, value}``, or a pair of speaker and text. None: the
    message is left out. Raises Unfit."""
    speaker, content = parts_of(message)
    name = str(speaker).strip().casefold()
    calls = isinstance(message, Mapping) and (message.get("tool_calls") or message.get("function_call"))
    if name in TOOLS or calls:
        raise Unfit(where, "calls a tool, and tool calls are not learnt; leave the conversation out")
    role = ROLES.get(name)
    if role is None:
        left[f"messages of the speaker {str(speaker)[:40]!r}"] += 1
        return None
    learnt = not (isinstance(message, Mapping) and message.get("weight") == 0)
    return Turn(role, text_of(content, where), learnt)


def parts_of(message: Any) -> tuple[Any, Any]:
    """Return speaker and text of a message; None for what it lacks."""
    if isinstance(message, Mapping):
        speaker, text = (
            next((message[name] for name in names if name in message), None) for names in (SPEAKERS, TEXTS)
        )
        return speaker, text
    if isinstance(message, list) and len(message) == 2:
        return message[0], message[1]
    return None, None


def text_of(content: Any, where: str) -> str:
    """Return a message's text, which may come in parts. Raises Unfit."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "\n".join(str(text) for text in texts)
        raise Unfit(where, "has parts that are not text, such as images; leave the conversation out")
    raise Unfit(where, "has no text; give its content")


def turns_of(messages: Any, field: str, left: LeftOut) -> list[Turn]:
    """Read all ``messages``. Raises Unfit."""
    if not isinstance(messages, list):
        raise Unfit(field, "is no list of messages")
    turns = (turn_of(message, f"{field}.{place}", left) for place, message in enumerate(messages))
    return [turn for turn in turns if turn is not None]


def asked(turns: Sequence[Turn], left: LeftOut) -> list[Turn]:
    """Return ``turns`` as user and assistant speak them in turn, from the first question on."""
    spoken: list[Turn] = []
    for turn in turns:
        if turn.role == "system":
            left.leave_prompt(turn.text)
        if turn.role == "system" or not turn.text.strip():
            continue
        if spoken and spoken[-1].role == turn.role:
            last = spoken[-1]
            spoken[-1] = replace(last, text=f"{last.text}\n{turn.text}", learnt=last.learnt or turn.learnt)
        elif spoken or turn.role == "user":
            spoken.append(turn)
        else:
            left[BEFORE] += 1
    return spoken


def examples_of(turns: Sequence[Turn], field: str, left: LeftOut) -> Iterator[Fields]:
    """Yield an example for every answer that is learnt. Those of one conversation are of one group, so that
    none is held out while another is trained on. Raises Unfit."""
    spoken = asked(turns, left)
    answers = [place for place, turn in enumerate(spoken) if turn.role == "assistant" and turn.learnt]
    if not answers:
        raise Unfit(field, "holds no answer to a question; add a message of the assistant")
    of_one = content_id("conversation", [[turn.role, turn.text] for turn in spoken])
    for place in answers:
        found = question_of(spoken[:place], field) | {"output": spoken[place].text}
        yield found | ({"group": of_one} if len(answers) > 1 else {})


def question_of(spoken: Sequence[Turn], field: str) -> Fields:
    """Return the question that ends ``spoken``, and the messages before it. Raises Unfit."""
    if not spoken or spoken[-1].role != "user":
        raise Unfit(field, "does not end with a question of the user")
    before = [{"role": turn.role, "content": turn.text} for turn in spoken[:-1]]
    return {"input": spoken[-1].text} | ({"messages": before} if before else {})

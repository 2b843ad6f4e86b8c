"""Asks a project's model a question, through the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import Endpoint

TIMEOUT_SECONDS = 300.0
SOURCES_HEADER = "x-tunewheel-sources"


class AnswerRefused(TunewheelError):
    """The gateway answered with an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    model: str
    """The model that answered."""
    completion_id: str
    sources: tuple[Mapping[str, str], ...]
    """``document``, ``heading`` and ``version`` of each passage in the prompt, the best first."""
    seconds: float


async def ask_gateway(
    gateway: Endpoint,
    question: str,
    *,
    project: str,
    model: str | None = None,
    user: str | None = None,
    temperature: float = 0.0,
    retrieval: str | None = None,
) -> Answer:
    """Ask one question; ``model`` is a model id, or ``base`` for the project's bare base model, ``retrieval``
    is on or off, else what the spec says.

    Raises:
        TransientError: the gateway does not answer, or is busy.
        NotAllowed: the gateway does not know the key, or the key lacks the role.
        AnswerRefused: the gateway refuses; the message holds its reason.
    """
    asked = project if model is None else f"{project}/base" if model == "base" else model
    body: dict[str, Any] = {
        "model": asked,
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
    }
    if user:
        body["user"] = user
    if retrieval:
        body["retrieval"] = retrieval
    began = time.monotonic()
    status, text, headers = await gateway.post_for_headers(
        "/v1/chat/completions", body, patience=TIMEOUT_SECONDS, option="--gateway"
    )
    seconds, answered = time.monotonic() - began, _read(status, text)
    return Answer(*answered, sources=tuple(json.loads(headers.get(SOURCES_HEADER, "[]"))), seconds=seconds)


def _read(status: int, text: str) -> tuple[str, str, str]:
    try:
        body = json.loads(text)
        if status == 200:
            return body["choices"][0]["message"]["content"], body["model"], body["id"]
        reason = body["error"]["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        reason = f"status {status}: {text[:300]}"
    if status in (429, 503):
        raise TransientError(f"gateway: {reason}")
    raise AnswerRefused(f"gateway: {reason}")

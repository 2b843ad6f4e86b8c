"""A question to a project's model, through the gateway."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import Endpoint

TIMEOUT_SECONDS = 300.0


class AnswerRefused(TunewheelError):
    """The gateway answered with an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    model: str
    """The model that answered."""
    completion_id: str
    seconds: float


async def ask_gateway(
    gateway: Endpoint,
    question: str,
    *,
    project: str,
    model: str | None = None,
    user: str | None = None,
    temperature: float = 0.0,
) -> Answer:
    """Ask one question; ``model`` is a model id, or ``base`` for the project's bare base model.

    Raises:
        TransientError: the gateway does not answer, or is busy.
        NotAllowed: it does not know the key, or the key lacks the role.
        AnswerRefused: it refuses; its own words are in the message.
    """
    asked = project if model is None else f"{project}/base" if model == "base" else model
    body: dict[str, Any] = {
        "model": asked,
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
    }
    if user:
        body["user"] = user
    began = time.monotonic()
    status, text = await gateway.post(
        "/v1/chat/completions", body, patience=TIMEOUT_SECONDS, option="--gateway"
    )
    return Answer(*_read(status, text), seconds=time.monotonic() - began)


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

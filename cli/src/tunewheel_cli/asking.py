"""A question to a project's model, through the gateway."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.places import Var
from tunewheel_cli.roster import GATEWAY, url
from tunewheel_cli.run_state import living

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


def gateway_url(var: Var) -> str:
    """Return where the gateway of the wheel on ``var`` listens, the usual place if none runs."""
    state = living(var.run_file)
    return (state and state.url_of(GATEWAY.name)) or url(GATEWAY.port)


async def ask_gateway(
    gateway: str,
    question: str,
    *,
    project: str,
    model: str | None = None,
    api_key: str | None = None,
    user: str | None = None,
    temperature: float = 0.0,
) -> Answer:
    """Ask one question; ``model`` is a model id, or ``base`` for the project's bare base model.

    Raises:
        TransientError: the gateway does not answer, or is busy.
        AnswerRefused: it refuses; its own words are in the message.
    """
    import aiohttp

    asked = project if model is None else f"{project}/base" if model == "base" else model
    body: dict[str, Any] = {
        "model": asked,
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
    }
    if user:
        body["user"] = user
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    began = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.post(f"{gateway.rstrip('/')}/v1/chat/completions", json=body) as response,
        ):
            status, text = response.status, await response.text()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise TransientError(
            f"gateway: nothing answers at {gateway} ({error}); start the wheel with `tunewheel up`, or name "
            "the gateway with --gateway"
        ) from error
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

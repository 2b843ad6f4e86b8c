# Generated from aio/asking.py by scripts/client_sync.py; change that file instead.
"""Asks models through the gateway, and sends feedback on their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunewheel_client.errors import Away
from tunewheel_client.sync.transport import GATEWAY, Transport
from tunewheel_client.values import Answer, FeedbackReceipt

ANSWER_SECONDS = 240.0
"""How much longer than another answer a model's may take."""
SOURCES = "x-tunewheel-sources"


def ask(
    transport: Transport,
    project: str,
    question: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    retrieval: Literal["on", "off"] | None = None,
    **parameters: Any,
) -> Answer:
    """See ``Client.ask``."""
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    named = project if model is None else f"{project}/base" if model == "base" else model
    body = {"model": named, "messages": messages} | parameters
    if retrieval is not None:
        body["retrieval"] = retrieval
    answer = transport.send(
        "POST",
        "chat",
        "completions",
        service=GATEWAY,
        json=body,
        is_harmless=False,
        extra_seconds=ANSWER_SECONDS,
    )
    try:
        told = answer.json()
        text = told["choices"][0]["message"]["content"] or ""
        sources = tuple(json.loads(answer.headers.get(SOURCES, "[]")))
        return Answer(text, told["model"], told["id"], sources, told.get("usage"))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Away(f"gateway: its answer is no chat completion ({error!r})") from error


def feedback(
    transport: Transport, completion_id: str, rating: Literal["up", "down"], **told: Any
) -> FeedbackReceipt:
    """See ``Client.feedback``."""
    body = {"completion_id": completion_id, "rating": rating} | told
    sent = {name: value for name, value in body.items() if value is not None}
    return transport.request(FeedbackReceipt, "POST", "feedback", service=GATEWAY, json=sent)

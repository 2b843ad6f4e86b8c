"""Asks models through the gateway, and sends feedback on their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunewheel_client.aio.transport import GATEWAY, Transport
from tunewheel_client.errors import Away
from tunewheel_client.values import Answer, FeedbackReceipt

ANSWER_SECONDS = 240.0
"""How much longer than another answer a model's may take."""
SOURCES = "x-tunewheel-sources"
CONFIDENCE = "x-tunewheel-confidence"


async def ask(
    transport: Transport,
    project: str,
    question: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    retrieval: Literal["on", "off"] | None = None,
    **parameters: Any,
) -> Answer:
    """See ``AsyncClient.ask``."""
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    named = project if model is None else f"{project}/base" if model == "base" else model
    body = {"model": named, "messages": messages} | parameters
    if retrieval is not None:
        body["retrieval"] = retrieval
    answer = await transport.send(
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
        message, sure = told["choices"][0]["message"], answer.headers.get(CONFIDENCE)
        return Answer(
            message["content"] or "",
            told["model"],
            told["id"],
            tuple(json.loads(answer.headers.get(SOURCES, "[]"))),
            told.get("usage"),
            message.get("refusal"),
            None if sure is None else float(sure),
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Away(f"gateway: its answer is no chat completion ({error!r})") from error


async def feedback(
    transport: Transport, completion_id: str, rating: Literal["up", "down"], **told: Any
) -> FeedbackReceipt:
    """See ``AsyncClient.feedback``."""
    body = {"completion_id": completion_id, "rating": rating} | told
    sent = {name: value for name, value in body.items() if value is not None}
    return await transport.request(FeedbackReceipt, "POST", "feedback", service=GATEWAY, json=sent)

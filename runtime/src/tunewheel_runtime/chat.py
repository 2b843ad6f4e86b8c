"""Asks a model behind an OpenAI-compatible endpoint that a project's spec names: a teacher, or a judge."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import AsyncOpenAI

NO_KEY = "none"


class ChatAway(Exception):
    """The model could not be asked; the message says why."""


class ChatRefused(ChatAway):
    """The endpoint refuses this request as such (400, 413 or 422): it may be too long, or not allowed."""


def open_chat(base_url: str, api_key_env: str | None, *, timeout_seconds: float) -> AsyncOpenAI:
    """Return a client, which the caller closes. Check the host with ``AllowedSources`` first."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    key = os.environ.get(api_key_env, "") if api_key_env else ""
    return AsyncOpenAI(
        base_url=base_url,
        api_key=key or NO_KEY,
        timeout=timeout_seconds,
        max_retries=2,
        # Only this host is allowed, so do not follow redirects to others.
        http_client=DefaultAsyncHttpxClient(follow_redirects=False),
    )


async def reply_of(
    client: AsyncOpenAI, model: str, messages: Sequence[dict[str, str]], *, as_json: bool = True
) -> str:
    """Return the model's reply; empty if it has no content. ``as_json`` asks for JSON mode, if the server
    supports it. Raises ChatAway."""
    from openai import APIError, APIStatusError, BadRequestError

    create: Any = client.chat.completions.create
    asked = {"model": model, "messages": list(messages), "temperature": 0, "seed": 17}
    options: dict[str, Any] = {"response_format": {"type": "json_object"}} if as_json else {}
    try:
        try:
            reply = await create(**asked, **options)
        except BadRequestError:
            if not options:
                raise
            reply = await create(**asked)  # some servers have no JSON mode
        return _text_of(reply)
    except (APIError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The client does not check the body. It may be no completion at all, such as a proxy's HTML page.
        refused = isinstance(error, APIStatusError) and error.status_code in (400, 413, 422)
        said = without_key(f"{type(error).__name__}: {error}", client.api_key)
        raise (ChatRefused if refused else ChatAway)(said) from error


def without_key(text: str, key: str | None) -> str:
    """Return ``text`` with ``key`` masked: servers repeat what they refuse. A key of fewer than eight
    characters is masked only where it is a word of its own, because longer words may hold it."""
    if not key or key == NO_KEY:
        return text
    found = re.escape(key)
    return re.sub(found if len(key) >= 8 else rf"(?<!\w){found}(?!\w)", "***", text)


def _text_of(reply: Any) -> str:
    said = reply.choices[0].message.content if reply.choices else None
    if not isinstance(said, str | None):
        raise TypeError(f"the content of its reply is a {type(said).__name__}, not a text")
    return said or ""


def json_in(said: str) -> str:
    """Return the JSON object in a reply, without a code fence around it."""
    start, end = said.find("{"), said.rfind("}")
    return said[start : end + 1] if 0 <= start < end else said

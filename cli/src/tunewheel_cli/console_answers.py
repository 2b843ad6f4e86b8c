"""Reads the console's answers."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import detail_of

CALL: dict[str, Any] = {"patience": 30.0, "option": "--console-url"}
"""Options of every request to the console."""


class ConsoleRefused(TunewheelError):
    """The console refuses a request. The message is the console's and names the field."""


def answer_of(said: tuple[int, str]) -> dict[str, Any]:
    """Return the console's answer from (status, text).

    Raises:
        TransientError: the console, or a service that it needs, is away, and nothing was kept.
        ConsoleRefused: the console refuses the request.
    """
    status, text = said
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    reason = detail_of(status, text)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise TransientError(f"console: {reason}")
    raise ConsoleRefused(f"console: {reason}")


def printable(text: str) -> str:
    """Return ``text`` without characters that control a terminal, because models and customers may write
    anything."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)

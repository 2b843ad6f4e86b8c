"""What the console answers to commands."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from typing import Any

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import detail_of

CALL: dict[str, Any] = {"patience": 30.0, "option": "--console-url"}
"""How every call to the console is made."""


class ConsoleRefused(TunewheelError):
    """The console refuses; the message is its own and names the field."""


def answer_of(said: tuple[int, str]) -> dict[str, Any]:
    """Return what was answered, given status and text.

    Raises:
        TransientError: the console, or what it needs, is away: nothing was kept.
        ConsoleRefused
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
    """Return ``text`` without what would steer a terminal: models and customers write anything."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)

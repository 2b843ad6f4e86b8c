"""Translates an engine's refusal into OpenAI's error shape.

Engines differ in all but the HTTP status. vLLM repeats the status as ``code`` and has its own names for
``type``. TGI sends only a message. Neither has a code for a prompt that is too long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_MESSAGE = 2_000
TOO_LONG = "context_length_exceeded"
_TOO_LONG = re.compile(
    r"maximum (context|model) length|model's (maximum )?context length|context_length_exceeded"
    r"|`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",
    re.IGNORECASE,
)
"""vLLM: "This model's maximum context length is 4096 tokens. However, …", "The decoder prompt (length 5000)
is longer than the maximum model length of 4096.". TGI: "`inputs` tokens + `max_new_tokens` must be <= 2048".
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    message: str
    param: str | None
    code: str | None


def refusal_of(status: int, error: Mapping[str, Any]) -> Refusal:
    """Read an engine's 4xx error: its message, and its param and code where they are strings."""
    message = str(error.get("message") or "the engine refuses the request")[:LONGEST_MESSAGE]
    param, code = (_text(error.get(name)) for name in ("param", "code"))
    if status == 429:
        return Refusal(status, message, param, code or "rate_limit_exceeded")
    if code == TOO_LONG or _TOO_LONG.search(message):
        return Refusal(400, message, param or "messages", TOO_LONG)
    return Refusal(status, message, param, code)


def _text(value: Any) -> str | None:
    return value[:100] if isinstance(value, str) and value else None

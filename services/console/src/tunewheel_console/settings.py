"""What the console can be told from outside."""

from __future__ import annotations

from pydantic import Field, SecretStr
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the console."""

    refresh_seconds: float = Field(default=1.0, gt=0)
    """How often an open page looks for news."""
    recent_events: int = Field(default=1_000, ge=1)
    """Of topics that carry traffic, so many of the latest events per partition are read at start."""

    session_secret: SecretStr | None = Field(default=None, min_length=32)
    """Signs the cookies of sessions. Without it each process makes one of its own: a session then ends with
    the process, and holds in no other replica."""
    session_seconds: float = Field(default=28_800.0, gt=0)
    """How long a login lasts; never longer than the token that it was made with."""

"""Settings of the console."""

from __future__ import annotations

from pydantic import Field, SecretStr
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the console."""

    refresh_seconds: float = Field(default=1.0, gt=0)
    """How often an open page checks for changes."""
    recent_events: int = Field(default=1_000, ge=1)
    """How many of the latest events per partition are read at the start, of topics that carry traffic."""

    session_secret: SecretStr | None = Field(default=None, min_length=32)
    """The secret that signs the cookies of sessions. Without it each process makes its own. Then a session
    ends with the process, and is not valid in other replicas."""
    session_seconds: float = Field(default=28_800.0, gt=0)
    """How long a login lasts. It ends earlier if its token expires."""

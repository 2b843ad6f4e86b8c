"""What the monitor can be told from outside."""

from __future__ import annotations

from pydantic import Field, SecretStr
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the monitor."""

    reference_texts: int = Field(default=8_000, ge=20)
    """At most so many of a dataset's questions are what questions are compared with."""
    pseudonym_secret: SecretStr | None = Field(default=None, min_length=16)
    """Keys the pseudonyms of users; the same on every replica."""
    clock_seconds: float = Field(default=5.0, gt=0)
    """How often deadlines are looked at."""

"""What the monitor can be told from outside."""

from __future__ import annotations

from pydantic import Field
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the monitor."""

    reference_texts: int = Field(default=8_000, ge=20)
    """At most so many of a dataset's questions are what questions are compared with."""
    clock_seconds: float = Field(default=5.0, gt=0)
    """How often deadlines are looked at."""

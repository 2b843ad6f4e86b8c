"""The settings of the monitor."""

from __future__ import annotations

from pydantic import Field
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the monitor."""

    reference_texts: int = Field(default=8_000, ge=20)
    """The most questions of a dataset in the reference."""
    clock_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two checks of deadlines."""

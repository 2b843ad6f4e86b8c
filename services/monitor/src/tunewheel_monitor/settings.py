"""The settings of the monitor."""

from __future__ import annotations

from pydantic import Field
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the monitor."""

    reference_texts: int = Field(default=8_000, ge=20)
    """The most questions of a dataset in the reference."""
    encoded_per_hour: int = Field(default=300, ge=0)
    """The most prompts of a project that a process scores by the sentence encoder in an hour. 0: none; static
    vectors alone score them."""
    clock_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two checks of deadlines."""

"""What the monitor can be told from outside."""

from __future__ import annotations

from pydantic import Field
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the monitor."""

    reference_texts: int = Field(default=1_000, ge=20)
    """At most so many of a dataset's texts are the input detector's reference; a larger one costs memory and
    time by its square and adds little power."""
    drift_examples: int = Field(default=5, ge=1, le=10)
    """Texts shown with a drift: those that are least like anything in the dataset."""

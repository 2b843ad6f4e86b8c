"""What ingest can be told from outside."""

from __future__ import annotations

from pydantic import Field
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the ingest service."""

    max_body_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1_024)
    """Largest single JSON body, and largest line of a JSON Lines body. The body as a whole is streamed."""
    publish_batch: int = Field(default=500, ge=1)
    """Lines of a JSON Lines body that are published, and acknowledged, together."""

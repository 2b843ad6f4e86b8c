"""What the eval service can be told from outside, by ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.webhooks import WebhookSettings


class Settings(WebhookSettings):
    """Settings of the eval service."""

    eval_threads: int = Field(default=0, ge=0)
    """Processor threads for measuring; 0 leaves the choice to torch."""
    eval_batch_size: int = Field(default=32, ge=1)
    """Prompts that are answered together."""
    eval_attempts: int = Field(default=3, ge=1)
    """Attempts at measuring a run, each with smaller batches, before it fails. Those that came further than
    the one before do not count."""
    eval_dtype: Literal["float32", "bfloat16"] = "float32"
    """What the engine that serves computes in, which is judged: the gateway refuses any other."""
    eval_regression_set: Path | None = None
    """A regression set of one's own (JSON Lines) instead of the one that comes with the service."""
    eval_wait_seconds: float = Field(default=259_200.0, ge=0)
    """Longest time that an evaluation waits in one process for passages that its verdict rests on, while the
    endpoint for vectors is away or an index is being built; three days. A restart begins it anew."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """Hosts that specs may have it ask for the vectors of questions, and the variable whose key a host may
    get."""

"""The settings of the eval service, by ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from tunewheel_contracts.formats.allowed_sources import DEFAULT_HOSTS, Hosts
from tunewheel_runtime.webhooks import WebhookSettings


class Settings(WebhookSettings):
    """The shared settings and those of eval."""

    eval_threads: int = Field(default=0, ge=0)
    """Processor threads for measuring; 0: torch decides."""
    eval_batch_size: int = Field(default=32, ge=1)
    """How many prompts are answered in one batch."""
    eval_slots: int = Field(default=1, ge=1)
    """How many evaluations run at once. Each loads its models into a process of its own."""
    eval_attempts: int = Field(default=3, ge=1)
    """Attempts at measuring a run before it fails, each with smaller batches. Attempts that made progress do
    not count."""
    eval_dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision of the engine that serves. It is part of the judged bundle; the gateway serves no
    other."""
    eval_regression_set: Path | None = None
    """Path of a regression set (JSON Lines) that replaces the one that comes with the service."""
    eval_wait_seconds: float = Field(default=259_200.0, ge=0)
    """The longest time (default: three days) that an evaluation waits for the passages or the judge that its
    verdict needs, while an endpoint is away or an index is being built. A restart of the process starts it
    again."""
    spec_hosts: Hosts = DEFAULT_HOSTS
    """The hosts that a spec may name for embeddings of questions and for its judge, separated by commas.
    ``host=VARIABLE`` also names the environment variable whose key that host gets."""

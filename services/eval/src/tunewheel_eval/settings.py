"""What the eval service can be told from outside, by ``TUNEWHEEL_*`` environment variables."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from tunewheel_runtime.settings import ServiceSettings

_WHSEC = "whsec_"


def _usable(secret: SecretStr | None) -> SecretStr | None:
    text = secret.get_secret_value() if secret is not None else ""
    if text.startswith(_WHSEC):
        try:
            base64.b64decode(text.removeprefix(_WHSEC), validate=True)
        except ValueError:
            raise ValueError(f"begins with {_WHSEC}, but what follows is not base64") from None
    return secret


class Settings(ServiceSettings):
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

    webhook_hosts: str = ""
    """Hosts that ``spec.review.webhook`` may name, separated by commas: names, addresses, networks. A name
    that leads to a private address counts only where that address is listed too. Empty: none."""
    webhook_secret: Annotated[SecretStr | None, AfterValidator(_usable)] = None
    """Signs what webhooks are told, as Standard Webhooks has it; ``whsec_`` and base64, or any text."""
    console_url: str = ""
    """Where reviewers reach the console, such as ``https://console.example.org``: webhooks are told it."""

    @property
    def webhook_host_list(self) -> tuple[str, ...]:
        return tuple(part.strip().lower() for part in self.webhook_hosts.split(",") if part.strip())

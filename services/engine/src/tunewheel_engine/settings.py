"""Settings of the engine: ``TUNEWHEEL_*`` environment variables, or the command's options."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from tunewheel_runtime.settings import HttpSettings


class Settings(HttpSettings):
    """The engine's settings, in addition to those in ``HttpSettings``."""

    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """A Hugging Face id, or the path of a directory with safetensors and tokenizer."""
    base_revision: str | None = None
    """Commit of the hub, or ``sha256:…`` of the files. The engine does not start with another revision. None:
    the commit that is mirrored in the store, or else the newest revision."""
    store_url: str = ""
    """The object store from which the base model is taken if train has mirrored it there. Rights to read it
    suffice. Empty: the base model is downloaded from the hub."""
    adapter_roots: list[Path] = []
    """Directories (JSON list) below which adapters must lie. Default: ``<cache_dir>/adapters``."""

    http_port: int = Field(default=8110, ge=0, le=65_535)
    health_port: int = Field(default=9110, ge=0, le=65_535)
    max_body_bytes: int = Field(default=4 << 20, gt=0)

    max_batch: int = Field(default=16, ge=1, le=256)
    """Most requests that generate at the same time."""
    max_queue: int = Field(default=64, ge=0)
    """Most requests that wait for a place in the batch. Further requests are answered 429."""
    max_context: int = Field(default=2048, ge=16)
    """Most tokens of prompt and answer together. The model's own limit counts where it is lower."""
    max_whole_models: int = Field(default=4, ge=0)
    """Most whole models beside the base: fully fine-tuned models, and adapters that are more than a LoRA.
    Each takes as much memory as the base."""
    prefill_tokens: int = Field(default=256, ge=1)
    """Most prompt tokens that are prefilled between two steps of the running batch."""
    threads: int | None = Field(default=None, ge=1)
    """Number of threads that compute. Default: the processor's cores."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 halves the memory, but answers then depend on what else is in the batch."""

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        return tuple(root.resolve() for root in self.adapter_roots or [self.cache_dir / "adapters"])

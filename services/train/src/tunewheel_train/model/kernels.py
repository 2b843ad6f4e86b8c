"""Chooses the kernels of a run by what the machine can do.

    layers      liger: RMSNorm, rotary positions and SwiGLU in one pass each (arXiv:2410.10989), in Triton
    attention   of padded batches; packed rows have their own (``attention.py``)
    compiled    never: it costs more than it gives, see docs/training.md

Liger's fused linear cross-entropy is not used: it computes logits for every position, while our loss computes
them only for the learnt ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

AMPERE = (8, 0)
"""The first compute capability with bf16. Both libraries require it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that decide. ``capability`` is the GPU's compute capability; None: there is no GPU."""

    capability: tuple[int, int] | None
    liger: bool
    """Whether liger is installed and supports the model."""
    flash_attention: bool
    """Installed."""
    half_precision: bool
    """Whether the model's weights are in bf16. Flash attention needs that."""


@dataclass(frozen=True, slots=True)
class Kernels:
    layers: Literal["torch", "liger"] = "torch"
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    compiled: Literal["no"] = "no"

    def told(self) -> dict[str, str]:
        """The form in events and manifests."""
        return {name: str(value) for name, value in asdict(self).items()}


def choose(facts: Facts) -> Kernels:
    """Return the fastest kernels that ``facts`` allow."""
    if facts.capability is None or facts.capability < AMPERE:
        return Kernels()
    return Kernels(
        layers="liger" if facts.liger else "torch",
        attention="flash_attention_2" if facts.flash_attention and facts.half_precision else "sdpa",
    )

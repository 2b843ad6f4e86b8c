"""Which kernels compute a run, by what the machine can do.

    layers      liger: RMSNorm, rotary positions and SwiGLU in one pass each (arXiv:2410.10989), in Triton
    attention   of padded batches; packed rows have their own (``attention.py``)
    compiled    never: it costs more than it gives, see docs/training.md

Liger's fused linear cross-entropy is not taken: it puts every position through the vocabulary, where our loss
takes the learnt ones alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

AMPERE = (8, 0)
"""The first compute capability with bf16, and the one that both libraries ask for."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides. ``capability`` is the GPU's compute capability; None: there is no GPU."""

    capability: tuple[int, int] | None
    liger: bool
    """Installed, and knows the model."""
    flash_attention: bool
    """Installed."""
    half_precision: bool
    """Whether the model's weights are in bf16: flash attention takes no others."""


@dataclass(frozen=True, slots=True)
class Kernels:
    layers: Literal["torch", "liger"] = "torch"
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    compiled: Literal["no"] = "no"

    def told(self) -> dict[str, str]:
        """As events and manifests hold it."""
        return {name: str(value) for name, value in asdict(self).items()}


def choose(facts: Facts) -> Kernels:
    """The fastest kernels that ``facts`` allow, all of them deterministic."""
    if facts.capability is None or facts.capability < AMPERE:
        return Kernels()
    return Kernels(
        layers="liger" if facts.liger else "torch",
        attention="flash_attention_2" if facts.flash_attention and facts.half_precision else "sdpa",
    )

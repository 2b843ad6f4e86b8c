"""Chooses the precision of computations by the processor's abilities."""

from __future__ import annotations

from typing import Literal

Precision = Literal["bfloat16", "float32"]


def compute_dtype() -> Precision:
    """Return ``bfloat16`` for CUDA devices that support it and for CPUs with AVX512-BF16 or AMX, else
    ``float32``.

    A CPU without these instructions emulates bf16. Training is then at least ten times slower than in fp32.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _cpu_has_bf16(dict(torch.cpu.get_capabilities())) else "float32"


def _cpu_has_bf16(capabilities: dict[str, object]) -> bool:
    return any(bool(capabilities.get(flag)) for flag in ("avx512_bf16", "amx_bf16"))

"""The number format to compute in, chosen by what the processor can do."""

from __future__ import annotations

from typing import Literal

Precision = Literal["bfloat16", "float32"]


def compute_dtype() -> Precision:
    """``bfloat16`` on CUDA that has it and on CPUs with AVX512-BF16 or AMX, else ``float32``.

    A CPU without those instructions emulates bf16: training there is slower than fp32 by a factor of ten and
    more.
    """
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _cpu_has_bf16(dict(torch.cpu.get_capabilities())) else "float32"


def _cpu_has_bf16(capabilities: dict[str, object]) -> bool:
    return any(bool(capabilities.get(flag)) for flag in ("avx512_bf16", "amx_bf16"))

"""bf16 only where the processor computes it."""

from __future__ import annotations

import pytest
import torch
from tunewheel_basemodel.precision import _cpu_has_bf16, compute_dtype


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "amx_tile": True}, True),
        ({}, False),
    ],
)
def test_the_cpu_flags_decide(capabilities: dict[str, object], expected: bool) -> None:
    assert _cpu_has_bf16(capabilities) is expected


def test_the_choice_follows_this_processor(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_bf16, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda has_bf16=has_bf16: {"avx512_bf16": has_bf16}
        )
        assert compute_dtype() == dtype

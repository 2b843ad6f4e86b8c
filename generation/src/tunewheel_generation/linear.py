"""Linear layers for inference: weights in the processor's layout, plus each row's own LoRA update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Layout = Literal["plain", "packed", "both"]
"""Layout of weights in memory: ``plain`` as loaded, ``packed`` in oneDNN's blocks, ``both`` at twice the
memory."""
PACKED_FOR = 4
"""Number of rows for which weights are packed. On AVX512 this is a tenth faster, at 1 and at 16 rows, than
packing for exactly that number."""


@dataclass(frozen=True)
class Delta:
    """The low-rank update of one layer: ``x @ a`` […, rank], masked by row, then ``@ b`` [rank, out]."""

    a: torch.Tensor
    b: torch.Tensor
    mask: torch.Tensor | None
    """[rows, 1, rank]: the columns of ``x @ a`` that belong to each row's adapter. None: all columns belong
    to all rows."""


class Deltas:
    """The low-rank updates that the next forward pass applies, by layer name."""

    def __init__(self) -> None:
        self.active: dict[str, Delta] = {}


class ServingLinear(nn.Module):
    """A linear layer for inference. It adds the active low-rank update that has the layer's name.

    A packed weight is brought into oneDNN's layout once, not on every call. On the processors measured this
    halves the time at 16 rows, but takes half as much longer for one row; one row therefore uses the plain
    weight where both layouts are there. From two rows on, a row's result has the same bits whatever the other
    rows are.
    """

    def __init__(
        self, name: str, weight: torch.Tensor, bias: torch.Tensor | None, deltas: Deltas, *, layout: Layout
    ) -> None:
        super().__init__()
        self._name = name
        self._deltas = deltas
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self._packed: Any = None
        self._plain_alone = layout == "both"
        if layout != "plain":
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR)
        if layout != "packed":
            self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is None or (self._plain_alone and x.numel() == self.in_features):
            out = nn.functional.linear(x, self.weight, self.bias)
        else:
            out = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return _updated(out, x, self._deltas.active.get(self._name))


class QuantizedLinear(nn.Module):
    """A 4-bit layer as it was loaded, plus the active low-rank update that has the layer's name."""

    def __init__(self, name: str, inner: nn.Linear, deltas: Deltas) -> None:
        super().__init__()
        self._name, self._inner, self._deltas = name, inner, deltas

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _updated(self._inner(x), x, self._deltas.active.get(self._name))


def _updated(out: torch.Tensor, x: torch.Tensor, delta: Delta | None) -> torch.Tensor:
    if delta is None:
        return out
    low = x @ delta.a
    if delta.mask is not None:
        low *= delta.mask
    width = out.shape[-1]
    return torch.addmm(out.view(-1, width), low.flatten(0, -2), delta.b).view(out.shape)


def can_pack(device: torch.device) -> bool:
    """Return whether oneDNN's packed linear layers are available on ``device``."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def replace_linears(
    model: nn.Module, deltas: Deltas, *, dtype: torch.dtype, layout: Layout, unpack: bool = True
) -> dict[str, tuple[int, int]]:
    """Replace every linear layer of ``model`` in place; return their (in, out) sizes by name.

    ``unpack``: whether 4-bit layers are unpacked once into ``dtype``. The rounded weights stay the same, and
    steps need no unpacking, but the layers take the memory of a full model.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, module in found:
        serving: nn.Module
        if not unpack and hasattr(module.weight, "quant_state"):
            serving = QuantizedLinear(name, module, deltas)
        else:
            bias = None if module.bias is None else module.bias.data.to(dtype)
            serving = ServingLinear(name, _weight(module).to(dtype), bias, deltas, layout=layout)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, serving)
    return {name: (module.in_features, module.out_features) for name, module in found}


def _weight(module: nn.Linear) -> torch.Tensor:
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        return module.weight.data
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, state).reshape(module.out_features, module.in_features)

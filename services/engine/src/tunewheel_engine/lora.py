"""LoRA adapters as the engine applies them: many in one batch (LoRA: arXiv:2106.09685).

The adapters of a batch are laid side by side, ``A = [A1 A2 …]`` and ``B = [B1; B2; …]``, and of ``x A`` each
row keeps the columns of its own adapter. That is two dense products for any mixture, and what a row gets
does not depend on the others: their columns are multiplied by exactly 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tunewheel_basemodel.loading import ADAPTER_WEIGHTS, check_adapter

from tunewheel_engine.errors import AdapterRefused
from tunewheel_engine.linear import Delta

if TYPE_CHECKING:
    from peft import LoraConfig

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


class LoraWeights:
    """An adapter's matrices by layer: ``a`` [in, rank] and ``b`` [rank, out], the scaling in ``b``."""

    def __init__(self, layers: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.layers = layers
        self.alone = {name: Delta(a, b, None) for name, (a, b) in layers.items()}


def read_lora(path: Path, *, layers: set[str], dtype: torch.dtype, device: torch.device) -> LoraWeights:
    """Read the adapter in ``path`` for a model whose linear layers are ``layers``.

    Raises AdapterRefused for what is not plain LoRA on linear layers, and InvalidAdapter for files that
    cannot be read.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    if (kind := check_adapter(path)["peft_type"]) != "LORA":
        raise AdapterRefused(f"{path} is a {kind} adapter; train a LoRA adapter", param="lora_path")
    config: Any = LoraConfig.from_pretrained(str(path))
    _check_plain(config, path)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(str(path / ADAPTER_WEIGHTS), device=str(device)).items():
        match = _KEY.fullmatch(key)
        if match is None or match["module"] not in layers:
            raise AdapterRefused(
                f"{path} changes {key!r}, which is no linear layer of the base model; train it on this base",
                param="lora_path",
            )
        found.setdefault(match["module"], {})[match["part"]] = tensor
    return LoraWeights({name: _matrices(name, parts, config, dtype) for name, parts in found.items()})


def _matrices(
    name: str, parts: dict[str, torch.Tensor], config: LoraConfig, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    if set(parts) != {"A", "B"} or parts["A"].shape[0] != parts["B"].shape[1]:
        raise AdapterRefused(f"the adapter's A and B for {name} do not fit; save it again", param="lora_path")
    scaling = _scaling(config, name, rank=parts["A"].shape[0])
    a = parts["A"].to(torch.float32).t().contiguous()
    b = (parts["B"].to(torch.float32) * scaling).t().contiguous()
    return a.to(dtype), b.to(dtype)


def _scaling(config: LoraConfig, name: str, *, rank: int) -> float:
    from peft.utils.other import get_pattern_key

    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), name), config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def _check_plain(config: LoraConfig, path: Path) -> None:
    for field in ("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters"):
        if getattr(config, field, None):
            raise AdapterRefused(
                f"{path} uses {field}, which this engine does not serve; train plain LoRA, or serve by vLLM",
                param="lora_path",
            )
    if config.bias != "none":
        raise AdapterRefused(f"{path} has bias={config.bias!r}; train with bias='none'", param="lora_path")


class Mixture:
    """The adapters that lie side by side for the running batch; laid anew only when one is missing."""

    def __init__(self) -> None:
        self._members: list[LoraWeights] = []
        self._stacks: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._owners: dict[str, tuple[int, ...]] = {}

    def deltas(self, rows: Sequence[LoraWeights | None]) -> dict[str, Delta]:
        """Updates for a batch in which row i uses adapter ``rows[i]`` (None: the base alone)."""
        wanted = list(dict.fromkeys(lora for lora in rows if lora is not None))
        if not wanted:
            return {}
        if len(wanted) == 1 and None not in rows:
            return wanted[0].alone
        if not set(wanted) <= set(self._members) or len(self._members) > 2 * len(wanted) + 1:
            self._lay(wanted)
        members = {lora: at for at, lora in enumerate(self._members)}
        of_row = [-1 if lora is None else members[lora] for lora in rows]
        masks: dict[tuple[int, ...], torch.Tensor] = {}
        out: dict[str, Delta] = {}
        for name, (a, b) in self._stacks.items():
            owners = self._owners[name]
            if owners not in masks:
                columns = torch.tensor(owners, device=a.device)
                masks[owners] = (torch.tensor(of_row, device=a.device)[:, None] == columns).to(a.dtype)[
                    :, None
                ]
            out[name] = Delta(a, b, masks[owners])
        return out

    def _lay(self, members: list[LoraWeights]) -> None:
        self._members, self._stacks, self._owners = members, {}, {}
        for name in dict.fromkeys(name for lora in members for name in lora.layers):
            have = [(at, lora.layers[name]) for at, lora in enumerate(members) if name in lora.layers]
            self._stacks[name] = (
                torch.cat([a for _, (a, _) in have], 1),
                torch.cat([b for _, (_, b) in have], 0),
            )
            self._owners[name] = tuple(at for at, (a, _) in have for _ in range(a.shape[1]))

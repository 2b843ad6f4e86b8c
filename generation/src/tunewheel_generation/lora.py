"""Reads LoRA adapters (arXiv:2106.09685) and applies several of them in one batch.

The matrices of a batch's adapters are concatenated: ``A = [A1 A2 …]`` and ``B = [B1; B2; …]``. In ``x A``
each row keeps the columns of its own adapter; the other columns are multiplied by exactly 0. Any mixture of
adapters then takes two dense products, and a row's result does not depend on the other rows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tunewheel_basemodel.errors import InvalidAdapter
from tunewheel_basemodel.loading import ADAPTER_WEIGHTS, check_adapter

from tunewheel_generation.linear import Delta

if TYPE_CHECKING:
    from peft import LoraConfig

_HARMLESS = frozenset(
    {
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("init_lora_weights", "eva_config", "loftq_config", "runtime_config", "megatron_core"),
    }
)
"""Options that plain LoRA may have: position and scaling of the matrices, and options that matter only in
training."""
_INSIDE = ("use_dora", "modules_to_save", "bias", "lora_bias", "target_parameters")
"""Options beyond plain LoRA that peft implements inside the layers that they name."""
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


class LoraWeights:
    """An adapter's matrices by layer: ``a`` [in, rank] and ``b`` [rank, out]. ``b`` includes the scaling."""

    def __init__(self, layers: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.layers = layers
        self.alone = {name: Delta(a, b, None) for name, (a, b) in layers.items()}


def read_lora(
    path: Path, *, layers: dict[str, tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> LoraWeights:
    """Read the adapter in ``path`` for a model whose linear layers have these (in, out) sizes.

    Raises InvalidAdapter for files that cannot be read, and for what is not plain LoRA on linear layers.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    if reason := beyond_lora(path):
        raise _refused(path, reason)
    config: Any = LoraConfig.from_pretrained(str(path))
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(str(path / ADAPTER_WEIGHTS), device=str(device)).items():
        match = _KEY.fullmatch(key)
        if match is None or match["module"] not in layers:
            reason = f"changes {key!r}, which is not a linear layer of the base model; train it on this base"
            raise _refused(path, reason)
        found.setdefault(match["module"], {})[match["part"]] = tensor
    for name, parts in found.items():
        _check_matrices(name, parts, layers[name], path)
    return LoraWeights({name: _matrices(name, parts, config, dtype) for name, parts in found.items()})


def _refused(path: Path, reason: str) -> InvalidAdapter:
    return InvalidAdapter(f"{path} {reason}")


def _check_matrices(name: str, parts: dict[str, torch.Tensor], sizes: tuple[int, int], path: Path) -> None:
    shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
    rank = shapes["A"][0] if "A" in shapes else 0
    if shapes != {"A": (rank, sizes[0]), "B": (sizes[1], rank)}:
        raise _refused(path, f"has {shapes} for {name}, whose sizes are {sizes}; train it on this base")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in parts.values()):
        reason = f"has values in {name} that are not finite; train again with a lower learning rate"
        raise _refused(path, reason)


def _matrices(
    name: str, parts: dict[str, torch.Tensor], config: LoraConfig, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    scaling = _scaling(config, name, rank=parts["A"].shape[0])
    a = parts["A"].to(torch.float32).t().contiguous()
    b = (parts["B"].to(torch.float32) * scaling).t().contiguous()
    return a.to(dtype), b.to(dtype)


def _scaling(config: LoraConfig, name: str, *, rank: int) -> float:
    from peft.utils.other import get_pattern_key

    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), name), config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def beyond_lora(path: Path) -> str | None:
    """Return why the adapter in ``path`` is not plain LoRA; None: it is plain LoRA.

    Raises InvalidAdapter for files that cannot be read.
    """
    from peft import LoraConfig

    if (kind := check_adapter(path)["peft_type"]) != "LORA":
        return f"is a {kind} adapter; train a LoRA adapter"
    return _more_than_lora(LoraConfig.from_pretrained(str(path)))


def _more_than_lora(config: Any) -> str | None:
    from peft import LoraConfig

    usual = LoraConfig()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in _HARMLESS and value and value != getattr(usual, field.name):
            return f"has {field.name}={value!r}, which is not supported; train plain LoRA, or use vLLM"
    if (start := config.init_lora_weights) not in (True, False, "gaussian", "orthogonal", "eva"):
        return f"has init_lora_weights={start!r}, which changes the base too; train plain LoRA"
    return None


def takes_whole_model(path: Path) -> bool:
    """Return whether the adapter in ``path`` can be merged into the base and served as a whole model.

    That is so if it exceeds plain LoRA only by options that peft implements inside the layers: DoRA
    (arXiv:2402.09353), biases, modules saved whole, experts of a mixture.

    Raises InvalidAdapter for files that cannot be read.
    """
    from peft import LoraConfig

    if check_adapter(path)["peft_type"] != "LORA":
        return False
    config, usual = LoraConfig.from_pretrained(str(path)), LoraConfig()
    if _more_than_lora(config) is None:
        return False
    for name in _INSIDE:
        setattr(config, name, getattr(usual, name))
    return _more_than_lora(config) is None


class Mixture:
    """The concatenated adapters of the running batch. They are concatenated anew only when one is missing."""

    def __init__(self) -> None:
        self._members: list[LoraWeights] = []
        self._stacks: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._owners: dict[str, tuple[int, ...]] = {}

    def deltas(self, rows: Sequence[LoraWeights | None]) -> dict[str, Delta]:
        """Return the updates, by layer, for a batch in which row i uses adapter ``rows[i]`` (None: no
        adapter)."""
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

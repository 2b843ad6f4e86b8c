"""The tokens that a token attends to: all earlier tokens, or those within a sliding window."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from tunewheel_basemodel.errors import BaseModelNotFound


@dataclass(frozen=True)
class Sight:
    """The attention pattern of a model. ``longest``: context length in tokens. ``window``: number of tokens,
    including the present one, that layers with a sliding window attend to; None: no layer has one.
    ``everywhere``: whether all layers have the window."""

    longest: int
    window: int | None = None
    everywhere: bool = False

    def mask(self, distance: torch.Tensor, dtype: torch.dtype) -> Any:
        """Return the additive attention mask [rows, 1, columns, tokens]; where there are two kinds of layers,
        a dict of both masks.

        ``distance`` [rows, columns, tokens]: how far back each token is; negative for a token that must not
        be attended to.
        """
        seen = distance >= 0
        if self.window is None or distance.shape[-1] <= self.window:
            return _additive(seen, dtype)
        near = _additive(seen & (distance < self.window), dtype)
        if self.everywhere:
            return near
        return {"full_attention": _additive(seen, dtype), "sliding_attention": near}


def sight_of(config: Any) -> Sight:
    """Return the attention pattern of a model with this configuration.

    Raises BaseModelNotFound for layers with another state than keys and values.
    """
    from transformers.cache_utils import get_layer_types_and_kwargs

    config = config.get_text_config()
    types, options = get_layer_types_and_kwargs(config)
    if strange := set(types) - {"full_attention", "sliding_attention"}:
        raise BaseModelNotFound(
            f"the model has {', '.join(sorted(strange))} layers, which cannot be batched here; name a model "
            "whose layers keep only keys and values"
        )
    longest = int(getattr(config, "max_position_embeddings", None) or sys.maxsize)
    windows = {int(option["sliding_window"]) for option in options if option.get("sliding_window")}
    if len(windows) > 1:
        return Sight(min(longest, *windows))
    window = next(iter(windows), None)
    return Sight(longest, window, everywhere="full_attention" not in types)


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # Convert the mask once; with a boolean mask every layer would convert it again.
    zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return zeros.masked_fill_(~seen, float("-inf"))[:, None]

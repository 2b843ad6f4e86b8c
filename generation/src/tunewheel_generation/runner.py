"""A loaded base model that reads prompts and makes one step of a batch, each row with its own adapter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
import torch
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.loading import Quantization, load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision

from tunewheel_generation.kv_cache import KvCache
from tunewheel_generation.linear import Deltas, Layout, can_pack, replace_linears
from tunewheel_generation.lora import LoraWeights, Mixture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = structlog.get_logger(__name__)
KEPT_ROWS = 8
"""Former requests whose keys and values stay: one for each system prompt in use at a time is enough."""
_SMALL = 16
"""A model that fits so often into the machine's memory may lie there twice."""


class Runner:
    """The model, its cache and the adapters of the batch. Used by one thread at a time."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        rows: int,
        tokens: int,
        dtype: torch.dtype,
        layout: Layout,
    ) -> None:
        self.tokenizer = tokenizer
        self.device = model.device
        self.dtype = dtype
        self.max_tokens = min(tokens, _longest(model.config))
        self.end_tokens = _end_tokens(model, tokenizer)
        self._deltas = Deltas()
        self._mixture = Mixture()
        self.layers = replace_linears(model, self._deltas, dtype=dtype, layout=layout)
        copies: dict[int, torch.Tensor] = {}  # by address: a head may share the embedding's weight
        for parameter in model.parameters():
            # A copy, because what is left of the loaded tensors would keep the whole file mapped.
            at = parameter.data_ptr()
            if at not in copies:
                copies[at] = parameter.data.to(dtype, copy=True)
            parameter.data = copies[at]
            parameter.requires_grad_(False)
        self._model = model
        self._cache = KvCache(
            layers=model.config.num_hidden_layers, rows=rows, kept=KEPT_ROWS, tokens=self.max_tokens
        )
        self.kept = range(rows + 1, rows + 1 + KEPT_ROWS)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], start: int, lora: LoraWeights | None) -> torch.Tensor:
        """Read ``tokens`` of a prompt, from position ``start`` on, into the staging row.

        Returns the logits [1, vocabulary] after the last of them.
        """
        stop = start + len(tokens)
        self._deltas.active = lora.alone if lora is not None else {}
        self._cache.aim_at_row(self._cache.staging, start, stop)
        positions = torch.arange(start, stop, device=self.device)
        seen = positions[:, None] >= torch.arange(stop, device=self.device)
        return self._forward(torch.tensor([tokens], device=self.device), positions[None], seen[None, None])

    @torch.inference_mode()
    def admit(self, row: int, length: int) -> None:
        """Move what was read into the staging row to ``row`` of the batch."""
        self._cache.move(self._cache.staging, row, length)

    @torch.inference_mode()
    def keep(self, row: int | None, kept: int, length: int) -> None:
        """Copy what a row of the batch, or None for the staging row, holds to row ``kept``."""
        self._cache.move(self._cache.staging if row is None else row, kept, length)

    @torch.inference_mode()
    def stage(self, row: int, length: int) -> None:
        """Copy the beginning of a row, of the batch or kept, into the staging row, as if it had been read."""
        self._cache.move(row, self._cache.staging, length)

    @torch.inference_mode()
    def replace(self, row: int, by: int, length: int) -> None:
        """Put row ``by`` in the place of ``row``, which left."""
        self._cache.move(by, row, length)

    @torch.inference_mode()
    def step(
        self, tokens: Sequence[int], lengths: Sequence[int], loras: Sequence[LoraWeights | None]
    ) -> torch.Tensor:
        """Add one token to each of the first rows, of which ``lengths`` tokens are known.

        Returns logits [rows, vocabulary].
        """
        self._deltas.active = self._mixture.deltas(loras)
        self._cache.aim_at_batch(list(lengths), self.device)
        positions = torch.tensor(lengths, device=self.device)[:, None]
        seen = torch.arange(max(lengths) + 1, device=self.device) <= positions
        inputs = torch.tensor(tokens, device=self.device)[:, None]
        return self._forward(inputs, positions, seen[:, None, None])

    def _forward(self, inputs: torch.Tensor, positions: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        # An additive mask once, or attention would convert the boolean one in every layer.
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill_(
            ~seen, float("-inf")
        )
        out = self._model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]


def load_runner(
    base: BaseModel,
    *,
    quantization: Quantization | None,
    trained_dtype: Precision,
    dtype: Precision,
    rows: int,
    tokens: int,
) -> Runner:
    """Load ``base`` for ``rows`` requests of up to ``tokens`` tokens that generate together.

    A quantised base is quantised from ``trained_dtype``, as it was for training, and then computed in
    ``dtype``. Raises BaseModelNotFound.
    """
    number = getattr(torch, dtype)
    packs = [True, False] if can_pack(torch.device("cpu")) and not torch.cuda.is_available() else [False]
    for pack in packs:
        model, tokenizer = load_base(
            base, dtype=trained_dtype if quantization else dtype, quantization=quantization
        )
        layout = _layout(model.num_parameters() * number.itemsize) if pack else "plain"
        runner = Runner(model, tokenizer, rows=rows, tokens=tokens, dtype=number, layout=layout)
        try:
            runner.read([0, 1, 2], 0, None)
        except AttributeError as error:  # the model's own code looks at a layer's weight
            if not pack:
                raise
            _log.info("packing_refused", reason=str(error))
            continue
        return runner
    raise AssertionError("unreachable")


def _layout(weight_bytes: int) -> Layout:
    """Both layouts where they are small beside the machine's memory, packed weights alone otherwise."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "both" if weight_bytes * _SMALL <= memory else "packed"


def _longest(config: Any) -> int:
    """Tokens that every layer of the model sees.

    Raises BaseModelNotFound for layers that keep another state than keys and values.
    """
    from transformers.cache_utils import get_layer_types_and_kwargs

    types, options = get_layer_types_and_kwargs(config.get_text_config())
    if strange := set(types) - {"full_attention", "sliding_attention"}:
        raise BaseModelNotFound(
            f"the model has {', '.join(sorted(strange))} layers, which this engine cannot batch; use vLLM"
        )
    windows = [option["sliding_window"] for option in options if option.get("sliding_window")]
    return min([int(config.get_text_config().max_position_embeddings), *windows])


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    known = [] if ends is None else ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in [*known, tokenizer.eos_token_id] if token is not None)

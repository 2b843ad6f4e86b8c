"""A loaded base model that runs forward passes on the rows of a batch, each row with its own adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import torch
from tunewheel_basemodel.loading import Quantization, load_base, merge_adapter
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.precision import Precision

from tunewheel_generation.kv_cache import KvCache
from tunewheel_generation.linear import Deltas, Layout, can_pack, replace_linears
from tunewheel_generation.lora import LoraWeights, Mixture
from tunewheel_generation.sight import sight_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = structlog.get_logger(__name__)
KEPT_ROWS = 8
"""Number of finished requests whose keys and values are kept. One per system prompt in use is enough."""
_SMALL = 16
"""Weights are kept in both layouts if they fit this many times into the machine's memory."""
_LOGIT_BYTES = 256 << 20
"""Logits of given answers are computed in parts of at most this many bytes."""


class Runner:
    """The model, its cache and the batch's adapters. Only one thread at a time may use it."""

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
        self.end_tokens = _end_tokens(model, tokenizer)
        self.weight_bytes = model.num_parameters() * dtype.itemsize * (2 if layout == "both" else 1)
        self.token_bytes = 0
        """Bytes of one token's keys and values; 0 before ``load_runner`` made the first forward pass."""
        self._sight = sight_of(model.config)
        self._deltas = Deltas()
        self._mixture = Mixture()
        # On a GPU weights stay quantised, to save memory. On a CPU unpacking at every step costs too much.
        self.layers = replace_linears(
            model, self._deltas, dtype=dtype, layout=layout, unpack=self.device.type == "cpu"
        )
        copies: dict[int, torch.Tensor] = {}  # By address, since the head may share the embedding's weight.
        for parameter in model.parameters():
            # Copied, because a single loaded tensor would keep the whole file mapped.
            at = parameter.data_ptr()
            parameter.requires_grad_(False)
            if not parameter.is_floating_point():  # 4-bit weights are packed into bytes.
                continue
            if at not in copies:
                copies[at] = parameter.data.to(dtype, copy=True)
            parameter.data = copies[at]
        self._model = model
        self.reserve(rows=rows, tokens=tokens)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and of the cache with full rows. Before the first forward pass the cache
        counts as 0."""
        return self.weight_bytes + self._cache.nbytes

    @property
    def longest(self) -> int:
        """The model's own context length in tokens, whatever length is reserved."""
        return self._sight.longest

    def reserve(self, *, rows: int, tokens: int, spare: int = 0, kept: int = KEPT_ROWS) -> None:
        """Replace the cache by an empty one for ``rows`` requests of up to ``tokens`` tokens.

        ``spare``: additional tokens per row for ``weigh``. ``kept``: number of rows for finished requests.
        """
        self.max_tokens = min(tokens, self.longest)
        self.kept = range(rows, rows + kept)
        self._cache = KvCache(
            layers=self._model.config.num_hidden_layers, rows=rows + kept, tokens=self.max_tokens + spare
        )

    @torch.inference_mode()
    def read(
        self,
        tokens: Sequence[Sequence[int]],
        starts: Sequence[int],
        loras: Sequence[LoraWeights | None],
        *,
        first: int = 0,
    ) -> torch.Tensor:
        """Run a forward pass over ``tokens[i]`` (at least one token) in row ``first`` + i, from position
        ``starts[i]`` on.

        Returns the logits [rows, vocabulary] after the last token of each row.
        """
        columns = max(map(len, tokens))
        stops = [start + len(row) for start, row in zip(starts, tokens, strict=True)]
        # Padded on the left, so that the last column holds every row's last token.
        ids = self._tensor([[0] * (columns - len(row)) + list(row) for row in tokens])
        slots = self._tensor(stops)[:, None] - columns + torch.arange(columns, device=self.device)
        positions = slots.clamp(min=0)
        distance = positions[..., None] - torch.arange(max(stops), device=self.device)
        if columns > 1:
            slots = slots.where(slots >= self._tensor(starts)[:, None], -1)
        return self._forward(first, ids, slots, positions, distance, loras, keep=1)[:, -1]

    @torch.inference_mode()
    def weigh(
        self,
        answers: Sequence[Sequence[Sequence[int]]],
        lengths: Sequence[int],
        logits: torch.Tensor,
        loras: Sequence[LoraWeights | None],
        *,
        first: int = 0,
    ) -> list[list[float]]:
        """Return the log-likelihoods in nats of the answers ``answers[i]`` after the prompt in row ``first``
        + i.

        The prompt has ``lengths[i]`` tokens. ``logits`` [rows, vocabulary] are those that ``read`` returned
        for it. The prompts stay in the cache.
        """
        foretold = logits.float().log_softmax(-1)
        sums = [
            foretold[row, [answer[0] for answer in choices]].tolist() for row, choices in enumerate(answers)
        ]
        columns = max(sum(len(answer) - 1 for answer in choices) for choices in answers)
        at_once = max(1, _LOGIT_BYTES // (4 * max(columns, 1) * logits.shape[-1]))
        for at in range(0, len(answers), at_once):
            part = slice(at, at + at_once)
            rests = self._weigh_rests(answers[part], lengths[part], loras[part], first=first + at)
            for row, rest in enumerate(rests, at):
                sums[row] = [one + other for one, other in zip(sums[row], rest, strict=True)]
        return sums

    def _weigh_rests(
        self,
        answers: Sequence[Sequence[Sequence[int]]],
        lengths: Sequence[int],
        loras: Sequence[LoraWeights | None],
        *,
        first: int,
    ) -> list[list[float]]:
        """Return the log-likelihoods of the answers without their first tokens.

        All answers to a prompt are written to its row, one behind the other. Each has the positions that
        follow the prompt, and the mask hides the other answers from it.
        """
        heads = [[token for answer in choices for token in answer[:-1]] for choices in answers]
        nexts = [[token for answer in choices for token in answer[1:]] for choices in answers]
        columns = max(map(len, heads))
        if columns == 0:
            return [[0.0] * len(choices) for choices in answers]
        begins: list[list[int]] = []
        for choices, head in zip(answers, heads, strict=True):
            own: list[int] = []
            for answer in choices:
                own += [len(own)] * (len(answer) - 1)
            begins.append(own + list(range(len(head), columns)))
        padded = [head + [0] * (columns - len(head)) for head in heads]
        sizes = self._tensor([[len(head)] for head in heads])
        held, offsets = self._tensor(lengths)[:, None], torch.arange(columns, device=self.device)
        begin = self._tensor(begins)
        slots = held + offsets
        positions = slots - begin
        key = torch.arange(max(map(sum, zip(lengths, map(len, heads), strict=True))), device=self.device)
        back = slots[..., None] - key
        own_part = (back >= 0) & (key >= (held + begin)[..., None])
        distance = torch.where(
            key < held[..., None], positions[..., None] - key, torch.where(own_part, back, -1)
        )
        slots = slots.where(offsets < sizes, -1)
        logits = self._forward(first, self._tensor(padded), slots, positions, distance, loras, keep=columns)
        wanted = self._tensor([one + [0] * (columns - len(one)) for one in nexts])
        logits = logits.float()
        said = (logits.gather(-1, wanted[..., None])[..., 0] - logits.logsumexp(-1)).tolist()
        return [_sums(row, choices) for row, choices in zip(said, answers, strict=True)]

    @torch.inference_mode()
    def move(self, source: int, target: int, stop: int, *, start: int = 0) -> None:
        """Copy tokens ``start`` … ``stop`` - 1 of row ``source`` to row ``target``. Both may be kept rows."""
        self._cache.move(source, target, start, stop)

    @contextmanager
    def lent(self, lora: LoraWeights | None) -> Iterator[Any]:
        """Yield the model, for code that calls it directly. ``lora`` is applied to every row meanwhile."""
        self._deltas.active = lora.alone if lora is not None else {}
        try:
            yield self._model
        finally:
            self._deltas.active = {}

    def _forward(
        self,
        first: int,
        ids: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        distance: torch.Tensor,
        loras: Sequence[LoraWeights | None],
        *,
        keep: int,
    ) -> torch.Tensor:
        """Return logits [rows, keep, vocabulary]. ``distance`` [rows, columns, tokens]: how far back each
        token of the row is; negative for a token that must not be attended to."""
        self._deltas.active = self._mixture.deltas(loras)
        self._cache.aim(first, slots, width=distance.shape[-1])
        out = self._model(
            input_ids=ids,
            attention_mask=self._sight.mask(distance, self.dtype),
            position_ids=positions,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return out.logits

    def _tensor(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.device)


def _sums(row: list[float], answers: Sequence[Sequence[int]]) -> list[float]:
    """Return the sum of ``row`` for each answer. An answer has one number fewer than tokens."""
    sums, at = list[float](), 0
    for answer in answers:
        sums.append(sum(row[at : at + len(answer) - 1]))
        at += len(answer) - 1
    return sums


def load_runner(
    base: BaseModel,
    *,
    quantization: Quantization | None,
    trained_dtype: Precision,
    dtype: Precision,
    rows: int,
    tokens: int,
    adapter: Path | None = None,
) -> Runner:
    """Load ``base`` for a batch of ``rows`` requests of up to ``tokens`` tokens.

    A quantised base is quantised from ``trained_dtype``, as for training, and computes in ``dtype``.
    ``adapter``: an adapter to merge into the weights; DoRA is fast only when merged. The merged model is not
    quantised. Raises BaseModelNotFound, InvalidAdapter.
    """
    number = getattr(torch, dtype)
    packs = [True, False] if can_pack(torch.device("cpu")) and not torch.cuda.is_available() else [False]
    for pack in packs:
        model, tokenizer = load_base(
            base, dtype=trained_dtype if quantization else dtype, quantization=quantization
        )
        if adapter is not None:
            model = merge_adapter(model, adapter)
        layout = _layout(model.num_parameters() * number.itemsize) if pack else "plain"
        runner = Runner(model, tokenizer, rows=rows, tokens=tokens, dtype=number, layout=layout)
        try:
            runner.read([[0, 1, 2]], [0], [None])
        except AttributeError as error:  # The model's code uses a layer's weight, which packing removes.
            if not pack:
                raise
            _log.info("packing_refused", reason=str(error))
            continue
        runner.token_bytes = runner._cache.token_bytes
        return runner
    raise AssertionError("unreachable")


def _layout(weight_bytes: int) -> Layout:
    """Return the layout: both if the weights are small compared with the machine's memory, else packed
    alone."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "both" if weight_bytes * _SMALL <= memory else "packed"


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    known = [] if ends is None else ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in [*known, tokenizer.eos_token_id] if token is not None)

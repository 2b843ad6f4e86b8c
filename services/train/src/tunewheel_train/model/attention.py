"""Attention over a packed row (``data/packing.py``), and the check that a model can be trained with it.

Each rest attends to the prefix and, causally, to itself. The prefix attends to itself. Some models are
refused and trained on padded batches instead: those with other features in their attention (capped scores,
sinks, a window shorter than the examples), and those that mix tokens outside transformers' attention
interface.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.packing import PackedLayout, pack, shared_prefix

NAME = "tunewheel_packed"
NEAR = 16
"""So many tokens behind the border of two examples are compared, beside the learnt ones."""
# Up to this length explicit matrix products beat PyTorch's CPU flash kernel, whose backward is slow.
_EXPLICIT_UP_TO = 768
_HIDDEN = -1e9
_WITHOUT_EFFECT = frozenset(
    {"dropout", "position_ids", "use_cache", "output_attentions", "output_hidden_states",
     "output_router_logits", "return_dict"}
)  # fmt: skip
"""Arguments that models pass to their attention and that change no score. ``dropout`` is checked in the
config, since the check runs in evaluation mode."""


class _Rearrange(torch.autograd.Function):
    """Select the rows ``index`` of ``x``. The gradient is selected by ``inverse``.

    Padding repeats rows, but the results of the copies are not used, so their gradients are zero. Hence
    selecting is enough, and it is faster than the scatter-add that autograd would use.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packed: PackedLayout | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, heads, tokens, size], key and value [1, kv heads, …].

    Returns [1, tokens, heads, size]. Raises NotEquivalent for an argument that asks for another attention.
    """
    if packed is None:
        raise NotEquivalent("its attention does not get the layout of the row")
    _demand_plain(packed.prefix + packed.longest, others)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, size]
    p = packed.prefix
    if p and _on_gpu(query) and query.requires_grad:
        # The prefix is repeated for each example and head: once more in the backward pass, so none is kept.
        rest = checkpoint(
            _attend_rests, q, k, v, packed, scale, use_reentrant=False, preserve_rng_state=False
        )
    else:
        rest = _attend_rests(q, k, v, packed, scale)
    rows = (
        rest.transpose(1, 2).reshape(packed.examples * packed.longest, -1).index_select(0, packed.from_block)
    )
    if p:
        prefix = _attend(query[:, :, :p], key[:, :, :p], value[:, :, :p], scale)
        rows = torch.cat((prefix[0].transpose(0, 1).reshape(p, -1), rows))
    return rows.view(1, q.shape[0], q.shape[1], v.shape[2]), None


def _attend_rests(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packed: PackedLayout, scale: float
) -> torch.Tensor:
    """[tokens, heads, size] → attention of the rests [examples, heads, longest, size]."""
    p = packed.prefix
    queries, keys, values = (_to_block(x[p:], packed) for x in (q, k, v))
    if p:
        keys = torch.cat((_repeated(k[:p], packed), keys), dim=2)
        values = torch.cat((_repeated(v[:p], packed), values), dim=2)
    return _attend(queries, keys, values, scale)


def _demand_plain(longest: int, arguments: Mapping[str, Any]) -> None:
    """Raise NotEquivalent unless ``arguments`` leave causal attention over ``longest`` tokens as it is."""
    for name, value in arguments.items():
        if name == "sliding_window":
            plain = value is None or value >= longest
        elif name == "is_causal":
            plain = value is None or value is True
        else:
            plain = name in _WITHOUT_EFFECT or value is None or value is False
        if not plain:
            told = f"{name} {value}" if isinstance(value, int | float) else name
            raise NotEquivalent(f"its attention takes {told}, which packed rows do not support")


def _to_block(x: torch.Tensor, packed: PackedLayout) -> torch.Tensor:
    """[tokens of rests, heads, size] → [examples, heads, longest, size]."""
    heads, size = x.shape[1:]
    block = _Rearrange.apply(x.reshape(-1, heads * size), packed.to_block, packed.from_block)
    return block.view(packed.examples, packed.longest, heads, size).transpose(1, 2)


def _repeated(x: torch.Tensor, packed: PackedLayout) -> torch.Tensor:
    """[prefix, heads, size] → [examples, heads, prefix, size]."""
    return x.transpose(0, 1).expand(packed.examples, -1, -1, -1)


def _on_gpu(x: torch.Tensor) -> bool:
    return x.device.type != "cpu"


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of the last q.shape[2] of k.shape[2] positions, heads grouped over kv heads."""
    (rows, heads, asked, size), (kv_heads, seen) = q.shape, k.shape[1:3]
    group = heads // kv_heads
    if _on_gpu(q) and asked == seen:
        # PyTorch's flash kernel takes grouped heads and no mask; it computes in half precision only
        half = q.dtype in (torch.bfloat16, torch.float16)
        if not half:
            k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=half)
    if _on_gpu(q) or seen > _EXPLICIT_UP_TO:
        visible = torch.ones(asked, seen, dtype=torch.bool, device=q.device).tril(seen - asked)
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    hidden = torch.full((asked, seen), _HIDDEN, device=q.device).triu(seen - asked + 1)
    flat = (rows * kv_heads, group * asked, size)
    k, v = (x.reshape(rows * kv_heads, seen, x.shape[-1]) for x in (k, v))
    scores = torch.bmm(q.reshape(flat), k.transpose(1, 2)).view(-1, group, asked, seen)
    weights = torch.softmax(torch.add(hidden, scores, alpha=scale), dim=-1).to(q.dtype)
    return torch.bmm(weights.view(-1, group * asked, seen), v).view(rows, heads, asked, -1)


@contextlib.contextmanager
def implementation(model: Any, name: str) -> Iterator[None]:
    """Run the body with attention ``name``. If the body raises, the model gets its previous attention
    back."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    except BaseException:
        model.set_attn_implementation(before)
        raise


def use_packed_attention(model: Any, examples: Sequence[Encoded]) -> None:
    """Switch ``model`` (a transformers causal LM) to packed attention if it gives the same answers.

    The two longest of ``examples``, which must be all that the model will be given, are scored both ways, and
    one of them beside other tokens. Raises NotEquivalent, with the reason; the model then keeps its
    attention.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    before = model.config._attn_implementation
    longest = sorted(examples, key=len)[-2:]
    _demand_plain_config(model.config.get_text_config(), len(longest[-1]))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = torch.cat([_scores(model, [example]) for example in longest])
            with implementation(model, NAME):
                found = _scores(model, longest, packed=True)
                _demand_equal(expected, found, model.dtype)
                _demand_apart(model, longest)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise NotEquivalent(f"it takes no packed rows ({str(error).strip().splitlines()[0]})") from error
    finally:
        model.train(was_training)
    model.before_packed = before


def _demand_plain_config(config: Any, longest: int) -> None:
    """Raise NotEquivalent for features of the attention that are only in the config, not in its arguments."""
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk is not None and chunk < longest:
        raise NotEquivalent(f"its attention_chunk_size {chunk} is shorter than an example of {longest}")
    for name in ("attention_dropout", "attn_pdrop"):
        if getattr(config, name, 0.0):
            raise NotEquivalent(f"its attention has dropout ({name}), which packed rows do not support")


def leave_packed_attention(model: Any) -> None:
    """Give ``model`` its own attention back. The default may not suit every model (Gemma 2)."""
    before = vars(model).pop("before_packed", None)
    if before is not None:
        model.set_attn_implementation(before)


class NotEquivalent(Exception):
    """A packed row would give other log-probabilities than single examples. The message says why."""


def _scores(model: Any, examples: Sequence[Encoded], *, packed: bool = False) -> torch.Tensor:
    """Log-probability [targets] of every learnt token."""
    logits, targets = _logits(model, examples, packed=packed)
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def _logits(model: Any, examples: Sequence[Encoded], *, packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [targets, vocabulary] of every learnt token, and the tokens [targets]."""
    batch = pack(examples).to(model.device)
    layout = {"packed": batch.layout} if packed else {}
    output = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False,
        logits_to_keep=batch.predicting, **layout,
    )  # fmt: skip
    return output.logits[0], batch.targets


def _demand_apart(model: Any, row: Sequence[Encoded]) -> None:
    """Raise NotEquivalent if the last example of ``row`` gets other logits beside other tokens. Layers that
    are no attention, such as convolutions and recurrences, read across the border of examples, often too
    little to be seen among rounded scores. In the same layout even the rounding stays, so any difference
    tells."""
    *others, last = row
    kept, size = shared_prefix(row) + 1, model.config.get_text_config().vocab_size
    changed = [
        replace(one, input_ids=(*one.input_ids[:kept], *((t + 1) % size for t in one.input_ids[kept:])))
        for one in others
    ]
    # what is read across the border may fade before the learnt tokens
    near = tuple(int(at >= kept) for at in range(len(last)))[: kept + NEAR]
    last = replace(last, mask=near + last.mask[len(near) :])
    told = sum(last.mask)
    beside = [_logits(model, [*first, last], packed=True)[0][-told:] for first in (others, changed)]
    difference = (beside[0] - beside[1]).abs().mean().item()
    has_experts = any(".experts." in name for name, _ in model.named_parameters())
    # experts that get other tokens besides may sum in another order
    rounding = torch.finfo(model.dtype).eps if has_experts else 0.0
    if difference > rounding or math.isnan(difference):
        raise NotEquivalent("its layers read the neighbour of an example in a packed row")


def _demand_equal(expected: torch.Tensor, found: torch.Tensor, dtype: torch.dtype) -> None:
    # bf16 keeps eight bits: scores of the same text differ by some hundredths with the order of sums.
    tolerance = 0.1 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    difference = (expected - found).abs().mean().item()
    if not difference <= tolerance:
        raise NotEquivalent(f"packed rows change its log-probabilities by {difference:.4f} on average")

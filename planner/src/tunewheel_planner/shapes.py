"""The shape of a model: all dimensions that determine memory and time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Annotated, Any

from pydantic import Field, ValidationError
from tunewheel_contracts.errors import InvalidSpec, first_complaint
from tunewheel_contracts.fields import Frozen

Count = Annotated[int, Field(gt=0)]
ALL_LINEAR = "all-linear"
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
"""Names of a block's linear layers, in the order of ``ModelShape.linears``."""
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Layers that some models fuse into one."""


class ModelShape(Frozen):
    """A decoder with gated MLP and grouped attention (Llama, Mistral, Qwen, Gemma, SmolLM …)."""

    hidden: Count
    layers: Count
    heads: Count
    kv_heads: Count
    head_size: Count
    intermediate: Count
    vocabulary: Count
    context: Count = 2048
    """The longest sequence that the model supports, in tokens."""
    tied: bool = False
    """Whether the output layer uses the embedding matrix."""
    experts: Count = 1
    """The number of gated MLPs of each block. ``intermediate`` is the width of one."""
    active: Count = 1
    """The number of experts that compute a token."""
    norms: Count = 2
    """Norms of the hidden states in each block."""
    head_norms: bool = False
    """Whether queries and keys are normalised."""
    shared: Annotated[int, Field(ge=0)] = 0
    """The width of the MLP that computes every token beside the experts."""
    capped: bool = False
    """Whether attention's scores are capped (Gemma 2), which no fused kernel of PyTorch does."""

    @property
    def query(self) -> int:
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of every linear layer of one block: q, k, v, o, gate, up, down."""
        h, i = self.hidden, self.intermediate
        attention = ((h, self.query), (h, self.key), (h, self.key), (self.query, h))
        return (*attention, (h, i), (h, i), (i, h))

    @property
    def linear_parameters(self) -> int:
        return self.layers * self._block(self.experts)

    @property
    def active_parameters(self) -> int:
        """The weights of linear layers that compute a token."""
        return self.layers * self._block(self.active)

    @property
    def active_share(self) -> float:
        return self.active_parameters / self.linear_parameters

    def _block(self, experts: int) -> int:
        attention, mlp = self.linears[:4], self.linears[4:]
        router = self.hidden * self.experts if self.experts > 1 else 0
        mlps = experts * sum(a * b for a, b in mlp) + 3 * self.hidden * self.shared
        return sum(a * b for a, b in attention) + mlps + router

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters. Norms are two vectors per block and one at the end."""
        return self.linear_parameters + self.embedding_parameters + (2 * self.layers + 1) * self.hidden

    @property
    def block_parameters(self) -> int:
        return self._block(self.experts) + 2 * self.hidden

    def adapted(self, targets: str | Sequence[str] = ALL_LINEAR) -> tuple[int, ...]:
        """Return in how many blocks each of ``linears`` gets an adapter.

        ``targets``: see ``TrainSpec.target_modules``. Models differ in the names of their layers, so a name
        that is unknown here counts as all layers.
        """
        everywhere = (self.layers,) * len(LINEARS)
        if targets == ALL_LINEAR:
            return everywhere
        wanted = [name for target in targets for name in _FUSED.get(target, (target,))]
        found = {name: self._named(name) for name in wanted}
        if not all(any(places) for places in found.values()):
            return everywhere
        blocks = (set[int]().union(*(places[at] for places in found.values())) for at in range(len(LINEARS)))
        return tuple(map(len, blocks))

    def _named(self, target: str) -> tuple[set[int], ...]:
        """Return, for each of ``LINEARS``, the blocks whose layer name ends with ``target``."""
        return tuple(
            {block for block in range(self.layers) if f".model.layers.{block}.{name}".endswith(f".{target}")}
            for name in LINEARS
        )

    def adapter_parameters(self, rank: int, targets: str | Sequence[str] = ALL_LINEAR) -> int:
        """Return the parameters of LoRA on ``targets``: A [rank, in] and B [out, rank] (arXiv:2106.09685).
        Each expert has its own."""
        copies = (1, 1, 1, 1, self.experts, self.experts, self.experts)
        sizes = zip(self.adapted(targets), copies, self.linears, strict=True)
        return sum(blocks * count * rank * (a + b) for blocks, count, (a, b) in sizes)


_NAMES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_size": "head_dim", "intermediate": "intermediate_size",
    "vocabulary": "vocab_size", "context": "max_position_embeddings", "experts": "num_experts",
    "active": "num_experts_per_tok",
}  # fmt: skip
"""The names of sizes in ``config.json``."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the text model of a ``config.json``. Multimodal models have it under ``text_config``."""
    told: Mapping[str, Any] | None = config.get("text_config")
    return told if told and hasattr(told, "get") else config


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Read a transformers ``config.json``.

    Raises InvalidSpec (``base_model``) if the formulas do not cover such a model.
    """
    told = text_config(config)
    _demand_plain(told)
    heads, hidden = told.get("num_attention_heads"), told.get("hidden_size")
    per_head = hidden // heads if isinstance(heads, int) and isinstance(hidden, int) and heads > 0 else None
    family = _of_family(str(told.get("model_type", "")))
    try:
        return ModelShape.model_validate(
            {
                "hidden": hidden,
                "layers": told.get("num_hidden_layers"),
                "heads": heads,
                "kv_heads": told.get("num_key_value_heads") or heads,
                "head_size": told.get("head_dim") or per_head,
                "intermediate": told.get("moe_intermediate_size") or told.get("intermediate_size"),
                "vocabulary": told.get("vocab_size"),
                "context": told.get("max_position_embeddings") or 2048,
                "tied": bool(told.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
                **_experts(told),
                **family,
                "capped": bool(told.get("attn_logit_softcapping", family["capped"])),
            }
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        name = _NAMES.get(field, field)
        said = f"{name} {reason}" if told.get(name) is not None else f"it has no {name}"
        raise _unreadable(said) from error


def _experts(told: Mapping[str, Any]) -> dict[str, Any]:
    experts = next((told[name] for name in _EXPERTS if told.get(name)), 1)
    width = told.get("moe_intermediate_size") or told.get("intermediate_size") or 0
    shared = told.get("shared_expert_intermediate_size") or (told.get("n_shared_experts") or 0) * width
    active = told.get("num_experts_per_tok") if experts != 1 else 1
    return {"experts": experts, "active": active, "shared": shared}


def _of_family(family: str) -> dict[str, Any]:
    """Return what a family has that its sizes do not tell, by the beginning of its model type."""
    return {
        "norms": 4 if family.startswith(("gemma2", "gemma3", "gemma4")) else 2,
        "head_norms": family.startswith(("qwen3", "gemma3", "gemma4", "olmo2", "olmo3")),
        "capped": family.startswith("gemma2"),
    }


def _demand_plain(told: Mapping[str, Any]) -> None:
    """Raise InvalidSpec for layers that the formulas do not count: compressed keys, and states instead of
    attention."""
    if told.get("kv_lora_rank"):
        raise _unreadable("kv_lora_rank is set, and it counts no compressed keys")
    kinds = {str(kind) for kind in told.get("layer_types") or ()}
    if other := sorted(
        kind
        for kind in kinds
        if not kind.endswith(("full_attention", "sliding_attention", "chunked_attention"))
    ):
        raise _unreadable(f"layer_types has {', '.join(other)}, and it counts attention only")


def _unreadable(why: str) -> InvalidSpec:
    return InvalidSpec(
        field="base_model",
        reason=f"has a config.json that the planner cannot read ({why}); "
        "it knows decoders with attention and gated MLPs, such as Llama, Mistral and Qwen3",
    )


def _known() -> dict[str, ModelShape]:
    told = json.loads(resources.files("tunewheel_planner").joinpath("shapes.json").read_text())
    names = ("hidden", "layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary", "context",
             "tied", "experts", "active")  # fmt: skip
    return {
        name: ModelShape.model_validate(dict(zip(names, sizes, strict=False)) | _of_family(_family(name)))
        for name, sizes in told["shapes"].items()
    }


def _family(name: str) -> str:
    """Return what the model type of a hub id begins with: ``google/gemma-3-4b-it`` is of gemma3."""
    return name.rpartition("/")[2].lower().replace("deepseek-r1-0528-", "").replace("-", "")


KNOWN = _known()
"""Shapes by hub id, smallest first, from ``shapes.json``, so that a plan needs no download."""
USUAL = (
    "HuggingFaceTB/SmolLM2-1.7B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct", "Qwen/Qwen3-4B-Instruct-2507", "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.3-70B-Instruct",
)  # fmt: skip
"""The models of a plan that names none: 1B to 70B."""

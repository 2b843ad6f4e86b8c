"""The shape of a model: all dimensions that determine memory and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters. Norms are two vectors per block and one at the end."""
        return self.linear_parameters + self.embedding_parameters + (2 * self.layers + 1) * self.hidden

    @property
    def block_parameters(self) -> int:
        return sum(a * b for a, b in self.linears) + 2 * self.hidden

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
        """Return the parameters of LoRA on ``targets``: A [rank, in] and B [out, rank] (arXiv:2106.09685)."""
        sizes = zip(self.adapted(targets), self.linears, strict=True)
        return sum(blocks * rank * (a + b) for blocks, (a, b) in sizes)


_NAMES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_size": "head_dim", "intermediate": "intermediate_size",
    "vocabulary": "vocab_size", "context": "max_position_embeddings",
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
    _demand_one_expert(told)
    heads, hidden = told.get("num_attention_heads"), told.get("hidden_size")
    per_head = hidden // heads if isinstance(heads, int) and isinstance(hidden, int) and heads > 0 else None
    try:
        return ModelShape.model_validate(
            {
                "hidden": hidden,
                "layers": told.get("num_hidden_layers"),
                "heads": heads,
                "kv_heads": told.get("num_key_value_heads") or heads,
                "head_size": told.get("head_dim") or per_head,
                "intermediate": told.get("intermediate_size"),
                "vocabulary": told.get("vocab_size"),
                "context": told.get("max_position_embeddings") or 2048,
                "tied": bool(told.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            }
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        name = _NAMES.get(field, field)
        said = f"{name} {reason}" if told.get(name) is not None else f"it has no {name}"
        raise _unreadable(said) from error


def _demand_one_expert(told: Mapping[str, Any]) -> None:
    for name in _EXPERTS:
        experts = told.get(name)
        if isinstance(experts, int) and experts > 1:
            raise _unreadable(f"{name} is {experts}, and it counts no mixtures of experts")


def _unreadable(why: str) -> InvalidSpec:
    return InvalidSpec(
        field="base_model",
        reason=f"has a config.json that the planner cannot read ({why}); "
        "it knows decoders with a gated MLP, such as Llama, Mistral and Qwen",
    )


def _shape(*sizes: int, tied: bool = False) -> ModelShape:
    names = ("hidden", "layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary", "context")
    return ModelShape.model_validate(dict(zip(names, sizes, strict=True)) | {"tied": tied})


KNOWN: dict[str, ModelShape] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": _shape(576, 30, 9, 3, 64, 1536, 49152, 8192, tied=True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _shape(960, 32, 15, 5, 64, 2560, 49152, 8192, tied=True),
    "Qwen/Qwen2.5-0.5B-Instruct": _shape(896, 24, 14, 2, 64, 4864, 151936, 32768, tied=True),
    "Qwen/Qwen3-0.6B": _shape(1024, 28, 16, 8, 128, 3072, 151936, 40960, tied=True),
    "google/gemma-3-1b-it": _shape(1152, 26, 4, 1, 256, 6912, 262144, 32768, tied=True),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _shape(2048, 22, 32, 4, 64, 5632, 32000, 2048),
    "meta-llama/Llama-3.2-1B-Instruct": _shape(2048, 16, 32, 8, 64, 8192, 128256, 131072, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _shape(1536, 28, 12, 2, 128, 8960, 151936, 32768, tied=True),
    "Qwen/Qwen3-1.7B": _shape(2048, 28, 16, 8, 128, 6144, 151936, 40960, tied=True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _shape(2048, 24, 32, 32, 64, 8192, 49152, 8192, tied=True),
    "google/gemma-2-2b-it": _shape(2304, 26, 8, 4, 256, 9216, 256000, 8192, tied=True),
    "Qwen/Qwen2.5-3B-Instruct": _shape(2048, 36, 16, 2, 128, 11008, 151936, 32768, tied=True),
    "HuggingFaceTB/SmolLM3-3B": _shape(2048, 36, 16, 4, 128, 11008, 128256, 65536, tied=True),
    "meta-llama/Llama-3.2-3B-Instruct": _shape(3072, 28, 24, 8, 128, 8192, 128256, 131072, tied=True),
    "microsoft/Phi-3.5-mini-instruct": _shape(3072, 32, 32, 32, 96, 8192, 32064, 131072),
    "microsoft/Phi-4-mini-instruct": _shape(3072, 32, 24, 8, 128, 8192, 200064, 131072, tied=True),
    "google/gemma-3-4b-it": _shape(2560, 34, 8, 4, 256, 10240, 262208, 131072, tied=True),
    "Qwen/Qwen3-4B": _shape(2560, 36, 32, 8, 128, 9728, 151936, 40960, tied=True),
    "Qwen/Qwen3-4B-Instruct-2507": _shape(2560, 36, 32, 8, 128, 9728, 151936, 262144, tied=True),
    "mistralai/Mistral-7B-Instruct-v0.2": _shape(4096, 32, 32, 8, 128, 14336, 32000, 32768),
    "mistralai/Mistral-7B-Instruct-v0.3": _shape(4096, 32, 32, 8, 128, 14336, 32768, 32768),
    "allenai/OLMo-2-1124-7B-Instruct": _shape(4096, 32, 32, 32, 128, 11008, 100352, 4096),
    "tiiuae/Falcon3-7B-Instruct": _shape(3072, 28, 12, 4, 256, 23040, 131072, 32768),
    "Qwen/Qwen2.5-7B-Instruct": _shape(3584, 28, 28, 4, 128, 18944, 152064, 32768),
    "meta-llama/Llama-3.1-8B-Instruct": _shape(4096, 32, 32, 8, 128, 14336, 128256, 131072),
    "Qwen/Qwen3-8B": _shape(4096, 36, 32, 8, 128, 12288, 151936, 40960),
    "google/gemma-2-9b-it": _shape(3584, 42, 16, 8, 256, 14336, 256000, 8192, tied=True),
    "google/gemma-3-12b-it": _shape(3840, 48, 16, 8, 256, 15360, 262208, 131072, tied=True),
    "microsoft/phi-4": _shape(5120, 40, 40, 10, 128, 17920, 100352, 16384),
    "Qwen/Qwen2.5-14B-Instruct": _shape(5120, 48, 40, 8, 128, 13824, 152064, 32768),
    "Qwen/Qwen3-14B": _shape(5120, 40, 40, 8, 128, 17408, 151936, 40960),
    "mistralai/Mistral-Small-24B-Instruct-2501": _shape(5120, 40, 32, 8, 128, 32768, 131072, 32768),
    "google/gemma-2-27b-it": _shape(4608, 46, 32, 16, 128, 36864, 256000, 8192, tied=True),
    "google/gemma-3-27b-it": _shape(5376, 62, 32, 16, 128, 21504, 262208, 131072, tied=True),
    "Qwen/Qwen2.5-32B-Instruct": _shape(5120, 64, 40, 8, 128, 27648, 152064, 32768),
    "Qwen/Qwen3-32B": _shape(5120, 64, 64, 8, 128, 25600, 151936, 40960),
    "meta-llama/Llama-3.1-70B-Instruct": _shape(8192, 80, 64, 8, 128, 28672, 128256, 131072),
    "meta-llama/Llama-3.3-70B-Instruct": _shape(8192, 80, 64, 8, 128, 28672, 128256, 131072),
    "Qwen/Qwen2.5-72B-Instruct": _shape(8192, 80, 64, 8, 128, 29568, 152064, 32768),
}
"""Shapes by hub id, smallest first, from each model's public config.json, so that a plan needs no
download."""
USUAL = (
    "HuggingFaceTB/SmolLM2-1.7B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct", "Qwen/Qwen3-4B-Instruct-2507", "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.3-70B-Instruct",
)  # fmt: skip
"""The models of a plan that names none: 1B to 70B."""

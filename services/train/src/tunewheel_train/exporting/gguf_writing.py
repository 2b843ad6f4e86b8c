"""Writes a whole model as one GGUF file, the format of llama.cpp, with llama.cpp's ``gguf`` package.

The package knows the format, the names of tensors and the quantisations. How a model's config and tensors map
to them is defined here per architecture, after llama.cpp's convert_hf_to_gguf.py. Other architectures are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewheel_train.errors import NotExported
from tunewheel_train.exporting.gguf_vocabulary import add_vocabulary

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

Encoding = Literal["float32", "float16", "q8_0"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """``permutes``: the rows of the query and key projections must be reordered, because llama.cpp rotates
    neighbouring dimensions of a head and transformers rotates its two halves."""

    name: str
    permutes: bool
    biases: bool


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", permutes=True, biases=False),
    "qwen2": Architecture("qwen2", permutes=False, biases=True),
}
"""By transformers' ``model_type``."""


def write_gguf(model: Any, tokenizer: Any, path: Path, *, encoding: Encoding, name: str) -> None:
    """Write ``model`` (fp32, unquantised) and ``tokenizer`` to ``path``; vectors stay fp32.

    Raises NotExported for an architecture, a rotary scaling or a tokenizer that is not known, and for weights
    that ``encoding`` cannot hold.
    """
    import gguf

    config = model.config
    architecture = architecture_of(config)
    writer = gguf.GGUFWriter(path, architecture.name)
    _add_shape(writer, config, encoding, name)
    add_vocabulary(writer, tokenizer, rows=config.vocab_size)
    _add_tensors(writer, model, architecture, encoding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def architecture_of(config: Any) -> Architecture:
    """Return the architecture of the model of ``config``. Raises NotExported, naming what is not
    supported."""
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise NotExported(
            f"models of type {config.model_type} are not written as GGUF, only {', '.join(ARCHITECTURES)}; "
            "export safetensors and convert them with llama.cpp's own script"
        )
    rotary = config.rope_parameters.get("rope_type", "default")
    complaints = {
        f"rope_type {rotary}": rotary != "default",
        f"hidden_act {config.hidden_act}": config.hidden_act != "silu",
        "attention_bias": bool(getattr(config, "attention_bias", False)) and not found.biases,
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
        "use_sliding_window": bool(getattr(config, "use_sliding_window", False)),
    }
    for what, refused in complaints.items():
        if refused:
            raise NotExported(
                f"{config.model_type} with {what} is not written as GGUF; export safetensors and convert "
                "them with llama.cpp's own script"
            )
    return found


def _add_shape(writer: GGUFWriter, config: Any, encoding: Encoding, name: str) -> None:
    import gguf

    head = config.hidden_size // config.num_attention_heads
    head = getattr(config, "head_dim", None) or head
    file_types = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[file_types[encoding]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tensors(writer: GGUFWriter, model: Any, architecture: Architecture, encoding: Encoding) -> None:
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.name.upper()], config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue  # without an output matrix llama.cpp uses the embeddings
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise NotExported(f"GGUF has no name for {key} of a {architecture.name}; export safetensors")
        data = tensor.detach().float().cpu().numpy()
        if architecture.permutes and key.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads
            data = _neighbours(data, heads)
        kind = _kind_of(data, encoding)
        writer.add_tensor(name, _encoded(data, kind, name), raw_dtype=kind)


def _neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of every head from [half a, half b] to [a0, b0, a1, b1, …]."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _kind_of(data: np.ndarray, encoding: Encoding) -> GGMLQuantizationType:
    """Return the type as llama.cpp chooses it: fp32 for vectors, fp16 for rows that are not a whole number of
    blocks."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if data.ndim == 1 or encoding == "float32":
        return GGMLQuantizationType.F32
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0]
    fits = encoding == "q8_0" and data.shape[-1] % block == 0
    return GGMLQuantizationType.Q8_0 if fits else GGMLQuantizationType.F16


def _encoded(data: np.ndarray, kind: GGMLQuantizationType, name: str) -> np.ndarray:
    import numpy as np
    from gguf import quants

    with np.errstate(over="ignore"):
        encoded = quants.quantize(data, kind)
    if encoded.dtype == np.float16 and not np.isfinite(encoded).all():
        raise NotExported(f"{name} holds weights beyond fp16's range; export float32")
    return encoded

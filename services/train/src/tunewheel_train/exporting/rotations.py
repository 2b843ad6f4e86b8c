"""Compares the rotary positions (RoPE) of a GGUF file with those of the trained model.

The comparison of weights does not show them: transformers takes the figures from the configuration, and
llama.cpp takes them from the file. A script from before transformers 5 does not know ``rope_parameters``. It
leaves figures out, llama.cpp takes defaults, and the model answers otherwise without an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_train.errors import NotEqual

if TYPE_CHECKING:
    from gguf import GGUFReader

_BY_FACTORS = ("llama3", "proportional")
"""The kinds that llama.cpp computes by the file's tensor ``rope_freqs``."""
_KINDS = ("default", "linear", "yarn", "dynamic", *_BY_FACTORS)
_YARN: Mapping[str, Any] = {
    "beta_fast": 32, "beta_slow": 1, "truncate": True, "mscale": None, "mscale_all_dim": None,
}  # fmt: skip
"""What llama.cpp takes for YaRN, whatever the file of most architectures says."""


def read_factors(file: GGUFReader) -> list[float] | None:
    """Return the tensor ``rope_freqs`` of a GGUF file: one divisor for each pair of dimensions."""
    found = (one for one in file.tensors if one.name == "rope_freqs.weight")
    return next((one.data.tolist() for one in found), None)


def demand_same_rotations(
    told: Mapping[str, Any], config: Any, factors: Sequence[float] | None = None
) -> None:
    """Raise NotEqual unless llama.cpp rotates positions as ``config`` says, a text model's. The message names
    the field.

    ``told``: the file's metadata. ``factors``: see ``read_factors``.
    """
    ropes = getattr(config, "rope_parameters", None)
    if not ropes:
        return
    rope, sliding = ropes.get("full_attention", ropes), ropes.get("sliding_attention", {})
    _demand_known(rope, sliding)
    for name, (wanted, found) in _figures(told, config, rope, sliding).items():
        if wanted is not None and not _same(wanted, found):
            raise NotEqual(
                f"llama.cpp would rotate positions by a {name} of {_shown(found)}, and the model was trained "
                f"with {_shown(wanted)}; use a newer llama.cpp, or export safetensors"
            )
    _demand_same_factors(rope, config, "full_attention" if rope is not ropes else None, factors)


def _demand_known(rope: Mapping[str, Any], sliding: Mapping[str, Any]) -> None:
    """Raise NotEqual if llama.cpp does not rotate so, or if nothing here compares it."""
    kind, other = _kind(rope), _kind(sliding)
    reason: str | None = None
    if kind not in _KINDS or other != "default":
        unknown = f"sliding_attention.rope_type {other}" if kind in _KINDS else f"rope_type {kind}"
        reason = f"{unknown} is not compared with llama.cpp's rotations"
    elif kind == "dynamic" and rope.get("alpha") is None:
        reason = "rope_type dynamic without alpha changes the base with a text's length; llama.cpp does not"
    elif kind == "yarn":
        usual = {**_YARN, "attention_factor": 1 + 0.1 * math.log(rope.get("factor") or 1)}
        given = {name: rope[name] for name in usual if rope.get(name) is not None}
        odd = (f"{name} {value}" for name, value in given.items() if not _same(value, usual[name]))
        reason = next((f"{one} is not read by llama.cpp" for one in odd), None)
    if reason:
        raise NotEqual(f"rope_parameters.{reason}; export safetensors")


def _figures(
    told: Mapping[str, Any], config: Any, rope: Mapping[str, Any], sliding: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the model's figure and llama.cpp's, by the name of the field in the file."""
    of, kind = f"{told['general.architecture']}.rope", _kind(rope)
    scaled = kind in ("linear", "yarn")
    base, factor = rope.get("rope_theta"), rope.get("factor") if scaled else 1.0
    if kind == "dynamic" and base is not None:
        base *= rope["alpha"] ** (_head(config) / (_head(config) - 2))
    figures = {
        "freq_base": (base, told.get(f"{of}.freq_base", 10_000.0)),
        "freq_base_swa": (sliding.get("rope_theta"), told.get(f"{of}.freq_base_swa", 10_000.0)),
        "scaling.factor": (factor, told.get(f"{of}.scaling.factor", 1.0)),
    }
    scaling = told.get(f"{of}.scaling.type", "linear")
    if scaled or scaling != "linear":  # by a factor of 1 otherwise, which is none
        figures["scaling.type"] = (kind if scaled else "none", scaling)
    if kind == "yarn":
        name = "scaling.original_context_length"
        figures[name] = (rope.get("original_max_position_embeddings"), told.get(f"{of}.{name}"))
    if kind != "proportional":  # which gives the dimensions that do not turn a frequency of 0
        turned = int(_head(config) * (rope.get("partial_rotary_factor") or 1.0))
        figures["dimension_count"] = (turned, _turned(told))
    return figures


def _head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _turned(told: Mapping[str, Any]) -> int:
    """Return how many dimensions of a head llama.cpp rotates."""
    of = told["general.architecture"]
    found = told.get(f"{of}.rope.dimension_count") or told.get(f"{of}.attention.key_length")
    return found or told[f"{of}.embedding_length"] // told[f"{of}.attention.head_count"]


def _demand_same_factors(
    rope: Mapping[str, Any], config: Any, layers: str | None, factors: Sequence[float] | None
) -> None:
    kind = _kind(rope)
    if (factors is not None) != (kind in _BY_FACTORS):
        raise NotEqual(
            f"the file has {'no' if factors is None else 'a'} tensor rope_freqs, by which llama.cpp rotates "
            f"positions, and the model was trained with a rope_parameters.rope_type {kind}; "
            "use a newer llama.cpp, or export safetensors"
        )
    if factors is None:
        return
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    wanted = ROPE_INIT_FUNCTIONS[kind](config, "cpu", layer_type=layers)[0].tolist()
    found = [rope["rope_theta"] ** (-at / len(factors)) / factor for at, factor in enumerate(factors)]
    if len(found) != len(wanted) or not all(map(_same, wanted, found)):
        raise NotEqual(
            f"the file's tensor rope_freqs does not rotate positions as rope_parameters.rope_type {kind} of "
            "the trained model; use a newer llama.cpp, or export safetensors"
        )


def _kind(rope: Mapping[str, Any]) -> str:
    return rope.get("rope_type") or "default"


def _same(wanted: Any, found: Any) -> bool:
    """Compare two figures. Numbers may differ by fp32's rounding, and a frequency of 1e-30 is none."""
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(wanted, found, rel_tol=1e-5, abs_tol=1e-12)
    return wanted == found


def _shown(figure: Any) -> str:
    return f"{figure:g}" if isinstance(figure, int | float) else str(figure)

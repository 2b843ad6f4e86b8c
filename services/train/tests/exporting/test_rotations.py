"""A file by which llama.cpp would rotate positions otherwise than the trained model is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma4TextConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from tunewheel_train.errors import NotEqual
from tunewheel_train.exporting.rotations import demand_same_rotations

HEAD = 64
LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}
ALPHA = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 1.0, "alpha": 1000.0}
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
IN_YARN = {"freq_base": 1e6, "scaling.type": "yarn", "scaling.factor": 4.0,
           "scaling.original_context_length": 1024}  # fmt: skip


def config_of(rope: Any) -> Any:
    """Return a configuration of heads with 64 dimensions."""
    config = LlamaConfig(hidden_size=4 * HEAD, num_attention_heads=4, head_dim=HEAD)
    config.rope_parameters = rope
    return config


def metadata(told: dict[str, Any]) -> dict[str, Any]:
    rope = {"dimension_count": HEAD, **told}
    return {"general.architecture": "of", **{f"of.rope.{name}": value for name, value in rope.items()}}


def without(name: str) -> dict[str, Any]:
    return {other: value for other, value in IN_YARN.items() if other != name}


def factors_of(rope: dict[str, Any]) -> list[float]:
    """Return what a script writes for ``rope``: one divisor for each pair of dimensions."""
    found = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config_of(dict(rope)), "cpu")[0].tolist()
    return [rope["rope_theta"] ** (-at / len(found)) / one for at, one in enumerate(found)]


@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ({"rope_type": "default", "rope_theta": 10_000.0}, {}),
        ({"rope_type": "default", "rope_theta": 10_000.0}, {"scaling.type": "none", "scaling.factor": 1.0}),
        ({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}, {"dimension_count": 16}),
        (LINEAR, {"freq_base": 1e6, "scaling.type": "linear", "scaling.factor": 8.0}),
        (LINEAR, {"freq_base": 1e6, "scaling.factor": 8.0}),  # which llama.cpp takes for linear
        ({"full_attention": LINEAR, "sliding_attention": {"rope_theta": 1e4}},
         {"freq_base": 1e6, "scaling.factor": 8.0}),
        ({"full_attention": LINEAR, "sliding_attention": {"rope_theta": 5e4}},
         {"freq_base": 1e6, "scaling.factor": 8.0, "freq_base_swa": 5e4}),
        (ALPHA, {"freq_base": 1e4 * 1000 ** (64 / 62), "scaling.type": "none", "scaling.factor": 1.0}),
        (YARN, IN_YARN),
        ({**YARN, "beta_fast": 32.0, "beta_slow": 1, "truncate": True}, IN_YARN),
        ({**YARN, "attention_factor": 1.1386294}, IN_YARN),
        (None, {}),
    ],
)  # fmt: skip
def test_the_rotations_of_a_file_are_those_of_the_model(rope, told):
    demand_same_rotations(metadata(told), config_of(rope))


@pytest.mark.parametrize(
    ("rope", "told", "said"),
    [
        (LINEAR, {"freq_base": 1e5, "scaling.factor": 8.0}, "freq_base of 100000, .* 1e.06; use a newer"),
        ({"full_attention": LINEAR}, {"freq_base": 1e6}, r"scaling\.factor of 1, .* 8; use a newer llama"),
        (
            {"full_attention": LINEAR, "sliding_attention": {"rope_theta": 5e4}},
            {"freq_base": 1e6, "scaling.factor": 8.0},
            "freq_base_swa of 10000, .* 50000;",
        ),
        ({"sliding_attention": {"rope_theta": 5e4}}, {}, "freq_base_swa of 10000, "),
        (ALPHA, {}, "freq_base of 10000, "),
        (ALPHA, {"freq_base": 1e4 * 1000 ** (128 / 126)}, "freq_base of 1.11588e.07, "),
        ({**YARN, "factor": 8.0}, IN_YARN, r"factor of 4, .* 8;"),
        (YARN, {**IN_YARN, "scaling.type": "linear"}, r"scaling\.type of linear, .* yarn;"),
        (YARN, without("scaling.type"), "type of linear, .* yarn;"),
        (LINEAR, {"freq_base": 1e6, "scaling.factor": 8.0, "scaling.type": "none"}, "none, .* linear;"),
        ({"rope_theta": 1e6}, IN_YARN, "factor of 4, .* 1;"),
        ({"rope_theta": 1e6}, {"freq_base": 1e6, "scaling.type": "longrope"}, "type of longrope, .* none;"),
        (YARN, {**IN_YARN, "scaling.original_context_length": 2048}, "context_length of 2048, .* 1024;"),
        (YARN, without("scaling.original_context_length"), "context_length of None, .* 1024;"),
        ({"rope_theta": 1e4, "partial_rotary_factor": 0.5}, {}, "dimension_count of 64, .* 32;"),
        ({"rope_theta": 1e4}, {"dimension_count": 32}, "dimension_count of 32, .* 64;"),
    ],
)
def test_a_file_with_other_figures_is_refused(rope, told, said):
    with pytest.raises(NotEqual, match=said):
        demand_same_rotations(metadata(told), config_of(rope))


@pytest.mark.parametrize(
    "told", [{"attention.key_length": 32}, {"embedding_length": 128, "attention.head_count": 4}]
)
def test_without_a_count_of_dimensions_llama_cpp_rotates_whole_heads(told):
    said = {"general.architecture": "of", **{f"of.{name}": value for name, value in told.items()}}
    half = {"rope_theta": 1e4, "partial_rotary_factor": 0.5}
    demand_same_rotations(said, config_of(half))
    with pytest.raises(NotEqual, match=r"dimension_count of 32, .* 64;"):
        demand_same_rotations(said, config_of({"rope_theta": 1e4}))


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({**LINEAR, "rope_type": "longrope"}, "rope_type longrope is not compared"),
        ({**LINEAR, "rope_type": "spiral"}, "rope_type spiral is not compared"),
        ({"full_attention": {"rope_type": "spiral"}}, "rope_type spiral is not compared"),
        ({"rope_theta": 1e4, "sliding_attention": LINEAR}, r"sliding_attention\.rope_type linear is not"),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "rope_type dynamic without alpha"),
        ({**YARN, "beta_fast": 16}, "beta_fast 16 is not read by llama"),
        ({**YARN, "beta_slow": 2}, "beta_slow 2 is not read by llama"),
        ({**YARN, "truncate": False}, "truncate False is not read by llama"),
        ({**YARN, "attention_factor": 1.0}, "attention_factor 1.0 is not read by llama"),
        ({**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, "mscale 1.0 is not read by llama"),
    ],
)
def test_what_llama_cpp_does_not_do_is_refused(rope, said):
    with pytest.raises(NotEqual, match=rf"rope_parameters\.{said}.*; export safetensors"):
        demand_same_rotations(metadata(IN_YARN), config_of(rope))


def test_the_factors_of_a_file_are_those_of_the_model():
    told, config = metadata({"freq_base": 5e5}), config_of(LLAMA_3)
    right = factors_of(LLAMA_3)
    demand_same_rotations(told, config, right)
    with pytest.raises(NotEqual, match=r"has no tensor rope_freqs, .*rope_type llama3; use a newer"):
        demand_same_rotations(told, config)
    for wrong in (factors_of({**LLAMA_3, "factor": 4.0}), [1.0] * len(right), right[:-1], [*right, 8.0]):
        with pytest.raises(NotEqual, match=r"rope_freqs does not rotate positions as .*rope_type llama3"):
            demand_same_rotations(told, config, wrong)
    with pytest.raises(NotEqual, match=r"has a tensor rope_freqs, .*rope_type default;"):
        demand_same_rotations(told, config_of({"rope_theta": 5e5}), right)


def test_dimensions_of_gemma_4_that_do_not_turn_have_a_factor_beyond_all_numbers():
    """llama.cpp's script writes 1e30 for them, of a frequency that is 0 in transformers."""
    config = Gemma4TextConfig(head_dim=32, global_head_dim=HEAD)
    told = metadata({"freq_base": 1e6, "freq_base_swa": 1e4})
    demand_same_rotations(told, config, [*[1.0] * 8, *[1e30] * 24])
    for turned in (7, 9):
        with pytest.raises(NotEqual, match="rope_type proportional"):
            demand_same_rotations(told, config, [*[1.0] * turned, *[1e30] * (32 - turned)])

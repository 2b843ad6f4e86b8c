"""What was judged, as one hashed thing."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_eval.bundles import bundle_of
from tunewheel_eval.measurement import model_key
from tunewheel_testing.adapters import BASE, SHA, adapter_of
from tunewheel_testing.specs import spec_of


def adapter(**changes: Any) -> AdapterRef:
    return adapter_of("desk-1", **({"base_facts": BaseModelFacts(chat_template_sha256="1" * 64)} | changes))


def spec(*, evaluation: dict[str, Any] | None = None, **task: Any) -> ProjectSpec:
    return spec_of(prompt="Answer.", task=task, evaluation={"decoding": evaluation or {}})


def test_a_bundle_names_everything_that_decides_an_answer() -> None:
    one = adapter(quantization="nf4")
    bundle = bundle_of(one, one, spec(max_output_tokens=9), precision="float32")
    assert (bundle.base, bundle.model_id, bundle.template_sha256) == (BASE, "desk-1", "1" * 64)
    assert (bundle.system_prompt, bundle.max_output_tokens, bundle.quantization) == ("Answer.", 9, "nf4")
    assert bundle.constraint_sha256 is None
    assert bundle_of(None, one, spec(), precision="float32").model_id is None


@pytest.mark.parametrize(
    ("task", "evaluation", "precision"),
    [
        ({"system_prompt": "Answer briefly."}, {}, "float32"),
        ({"max_output_tokens": 9}, {}, "float32"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {}, "float32"),
        ({}, {"temperature": 0.7}, "float32"),
        ({}, {}, "bfloat16"),
    ],
)
def test_whatever_changes_an_answer_changes_the_hash(
    task: dict[str, Any], evaluation: dict[str, Any], precision: str
) -> None:
    one = adapter()
    before = bundle_of(one, one, spec(), precision="float32")
    after = bundle_of(one, one, spec(**task, evaluation=evaluation), precision=precision)
    assert before.sha256 != after.sha256
    assert "chat_template_kwargs" not in before.model_dump()  # its hash is that of earlier releases
    again = bundle_of(one, one, spec(**task, evaluation=evaluation), precision=precision)
    assert after.sha256 == again.sha256


def test_other_files_are_another_adapter_and_another_place_is_not() -> None:
    def told(one: AdapterRef) -> str | None:
        return bundle_of(one, one, spec(), precision="float32").adapter_sha256

    moved = ArtifactRef(path="other/desk-1/adapter_model.safetensors", sha256=SHA, size_bytes=1)
    mended = ArtifactRef(path="adapters/desk-1/adapter_model.safetensors", sha256="2" * 64, size_bytes=1)
    assert told(adapter()) == told(adapter(path="other/desk-1", files=(moved,)))
    assert told(adapter()) != told(adapter(files=(mended,)))


def test_rows_of_another_decoding_are_not_mixed() -> None:
    def named(evaluation: dict[str, Any]) -> str:
        decoding = spec(evaluation=evaluation).evaluation.decoding
        return model_key(BASE, adapter(), quantization=None, decoding=decoding)

    template = model_key(BASE, adapter(), quantization=None, template={"enable_thinking": False})
    assert template != named({})
    assert named({}) == model_key(BASE, adapter(), quantization=None) != named({"temperature": 0.5})

"""What was judged, as one hashed thing."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.evaluation_plan import Champion, EvaluationPlan
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_eval.bundles import bundle_for, bundle_of
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


def plan_of(candidate: AdapterRef, champion: Champion) -> EvaluationPlan:
    ref = ArtifactRef(path="a", sha256=SHA, size_bytes=1)
    named = dict.fromkeys(("project", "run_id", "dataset_id", "scorecard_id"), "x")
    return EvaluationPlan(
        **named, dataset=ref, criteria_sha256=SHA, adapter=candidate, champion=champion, review_required=False
    )


def test_each_contestant_is_constrained_as_it_serves() -> None:
    declared, old = {"type": "object"}, {"type": "array"}
    plan = plan_of(adapter(), Champion(adapter=adapter(), constraint=old))

    def constraints(one: EvaluationPlan, **task: Any) -> list[Any]:
        asked = spec(output_schema=declared, label_field=None, **task)
        made = [bundle_for(one, role, asked, precision="float32") for role in Role]
        for bundle in made:
            kept = bundle.constraint
            assert bundle.constraint_sha256 == (None if kept is None else content_sha256(kept))
            assert (kept is None) is ("constraint" not in bundle.model_dump(mode="json"))
        return [bundle.constraint for bundle in made]

    roles = [*Role]
    assert constraints(plan) == [old if role is Role.CHAMPION else declared for role in roles]
    assert constraints(plan, constrained=False) == [old if role is Role.CHAMPION else None for role in roles]
    earlier = plan_of(adapter(), Champion(adapter=adapter()))
    assert constraints(earlier) == [None if role is Role.CHAMPION else declared for role in roles]


@pytest.mark.parametrize("schema", [{"not": {}}, {"type": "array", "uniqueItems": True}])
def test_a_schema_that_no_grammar_enforces_constrains_nothing(schema: dict[str, Any]) -> None:
    asked = spec(output_schema=schema, label_field=None)
    plan = plan_of(adapter(), Champion(adapter=adapter()))
    assert bundle_for(plan, Role.BASE, asked, precision="float32").constraint is None


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

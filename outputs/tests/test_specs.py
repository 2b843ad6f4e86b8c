"""Specs are checked as a whole: every fault is told, and what a change does not change yet."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.specs import check_spec, untold_change, vacuous_form


def spec(*, temperature: float = 0.0, description: str = "", **task: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "desk",
            "description": description,
            "base_model": "m",
            "task": {"system_prompt": "Answer.", **task},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "evaluation": {"decoding": {"temperature": temperature}},
        }
    )


def test_a_changed_prompt_is_said_to_wait_for_a_version() -> None:
    told = untold_change(spec(), spec(system_prompt="Answer briefly."))
    assert told is not None
    assert told.startswith("task.system_prompt changed: models that were judged serve as they were judged")
    both = untold_change(spec(), spec(temperature=0.5, max_output_tokens=9))
    assert both is not None
    assert both.startswith("task.max_output_tokens and evaluation.decoding changed: ")


def test_what_changes_no_answer_is_not_mentioned() -> None:
    assert untold_change(None, spec()) is None
    assert untold_change(spec(), spec(description="A desk.")) is None


def test_a_criterion_that_constrained_answers_always_meet_is_told() -> None:
    def told(metric: str, **task: Any) -> str | None:
        made = spec(**task).model_dump(mode="json") | {"criteria": [{"metric": metric, "minimum": 0.5}]}
        return vacuous_form(ProjectSpec.model_validate(made))

    schema = {"output_schema": {"type": "object"}}
    rules = {"output_rules": [{"rule": "allowed_values", "values": ["bell"], "field": "category"}]}
    assert str(told("valid_output", **schema)).startswith("criteria.0: answers are constrained")
    assert told("valid_output", **schema, constrained=False) is None
    assert told("valid_output", **schema, **rules) is None
    assert told("valid_output", **rules) is None
    assert told("rouge_l", **schema) is None


def test_a_spec_that_trains_with_passages_and_serves_without_is_refused() -> None:
    trained = spec().model_dump(mode="json") | {"retrieval": {"default": "off", "training": {}}}
    with pytest.raises(InvalidSpec, match="would be judged and serve without them") as refused:
        check_spec(json.dumps(trained))
    assert refused.value.field == "retrieval.training"
    assert check_spec(json.dumps(trained | {"retrieval": {"training": {}}})).trains_with_passages


def faults_of(changes: dict[str, Any], allowed: AllowedSources | None = None) -> list[str]:
    with pytest.raises(InvalidSpec) as refused:
        check_spec(json.dumps(spec().model_dump(mode="json") | changes), allowed=allowed)
    assert len(refused.value.faults) == 1 or str(refused.value).endswith(
        f"(and {len(refused.value.faults) - 1} more)"
    )
    return [field for field, _ in refused.value.faults]


def test_every_wrong_field_is_told_at_once() -> None:
    wrong = {"base_modle": "m", "task": {"system_prompt": 1}, "dataset": {"holdout_fraction": 2, "mni": 1}}
    told = faults_of(wrong)
    assert {*told} == {"base_modle", "task.system_prompt", "dataset.holdout_fraction", "dataset.mni"}
    assert faults_of({"base_modle": "m"}) == ["base_modle"]


def test_what_valid_fields_say_together_is_told_at_once_too() -> None:
    judge = {"base_url": "https://elsewhere.example/v1", "model": "m", "api_key_env": "TUNEWHEEL_JUDGE_KEY"}
    wrong = {
        "criteria": [{"metric": "rogue_l", "minimum": 0.1}, {"metric": "rouge_l", "minimum": 7}],
        "evaluation": {"judge": judge},
        "retrieval": {"default": "off", "training": {}},
    }
    of_criteria = ["criteria.0.metric", "criteria.1.minimum"]
    assert faults_of(wrong) == [*of_criteria, "retrieval.training"], "nobody said what is allowed"
    assert faults_of(wrong, AllowedSources())[2:] == ["retrieval.training", "evaluation.judge.base_url"]
    languages = {"dataset": {"languages": ["jp", "en", "xx"], "pii": {"entities": ["NAME"]}}}
    assert faults_of(languages) == ["dataset.languages.0", "dataset.languages.2", "dataset.pii.entities.0"]


def test_a_reward_without_a_criterion_of_single_answers_is_refused() -> None:
    def check(*metrics: str) -> ProjectSpec:
        made = spec().model_dump(mode="json") | {
            "train": {"reward": {}},
            "criteria": [{"metric": metric, "over_base": 0.0} for metric in metrics],
        }
        return check_spec(json.dumps(made))

    with pytest.raises(InvalidSpec, match="such as label_accuracy, valid_output or rouge_l") as refused:
        check("perplexity", "regression_accuracy")
    assert refused.value.field == "train.reward"
    assert check("perplexity", "rouge_l").train.reward is not None

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.spec import EvaluationSpec, ProjectSpec, TaskSpec
from tunewheel_outputs.criteria import check_criteria, level_of, unmeasurable


def spec(criterion: dict[str, Any], *, retrieval: dict[str, Any] | None = None, **task: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "retrieval": retrieval,
            "project": "desk",
            "base_model": "b",
            "task": {"system_prompt": "s"} | task,
            "criteria": [{"metric": "chrf", "minimum": 0.1}, criterion],
        }
    )


@pytest.mark.parametrize(
    ("criterion", "field", "word"),
    [
        ({"metric": "valid", "minimum": 1}, "criteria.1.metric", "choose from answer_length, chrf"),
        ({"metric": "lm_eval.quiz.acc", "minimum": 0.5}, "criteria.1.metric", "evaluation.lm_eval"),
        ({"metric": "lm_eval.quiz.bleu", "minimum": 1}, "criteria.1.metric", "acc_norm, acc_bytes"),
        ({"metric": "valid_output", "minimum": 1}, "task.output_schema", "valid_output"),
        ({"metric": "exact_fields", "minimum": 1}, "task.output_schema", "exact_fields"),
        ({"metric": "set_match", "minimum": 1}, "task.output_schema", "set_match"),
        ({"metric": "label_accuracy", "over_base": 0}, "task.label_field", "label_accuracy"),
        ({"metric": "rule_compliance", "minimum": 1}, "task.output_rules", "rule_compliance"),
        ({"metric": "domain_language", "minimum": 1}, "task.glossary", "domain_language"),
        ({"metric": "numeric_accuracy", "minimum": 1}, "task.number_tolerance", "numeric_accuracy"),
        ({"metric": "refusal_rate", "minimum": 1}, "task.refusal", "refusal_rate"),
        ({"metric": "rouge_l", "minimum": 1.5}, "criteria.1.minimum", "0..1, the range of rouge_l"),
        ({"metric": "rouge_l", "maximum": -1}, "criteria.1.maximum", "0..1"),
        ({"metric": "perplexity", "maximum": 0.9}, "criteria.1.maximum", "1.., the range of perplexity"),
        ({"metric": "rouge_l", "significance": 0.9}, "criteria.1.significance", "write 0.5 or less"),
        (
            {"metric": "rouge_l", "over_base": 0, "significance": 0.51},
            "criteria.1.significance",
            "0.51 is above",
        ),
    ],
)
def test_criteria_that_cannot_be_met_are_refused(criterion: dict[str, Any], field: str, word: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        check_criteria(spec(criterion))
    assert caught.value.field == field
    assert word in caught.value.reason


@pytest.mark.parametrize(
    ("criterion", "judge", "field"),
    [
        ({"metric": "judged", "minimum": 0.5}, False, "evaluation.judge"),
        ({"metric": "judged", "significance": 0.05}, True, "criteria.1.minimum"),
        ({"metric": "judged", "minimum": 0.5, "over_champion": 0}, True, "criteria.1.over_champion"),
        ({"metric": "judged", "minimum": 1.5}, True, "criteria.1.minimum"),
        ({"metric": "judged", "minimum": 0.5}, True, None),
        ({"metric": "perplexity", "maximum": 9}, False, None),
    ],
)
def test_a_criterion_on_the_judge_needs_a_judge_and_a_minimum(
    criterion: dict[str, Any], judge: bool, field: str | None
) -> None:
    named = JudgeSpec(base_url="http://judge.example/v1", model="m") if judge else None
    asked = spec(criterion).model_copy(update={"evaluation": EvaluationSpec(judge=named)})
    if field is None:
        return check_criteria(asked)
    with pytest.raises(InvalidSpec) as caught:
        check_criteria(asked)
    assert caught.value.field == field
    return None


@pytest.mark.parametrize(
    ("criterion", "retrieval", "field"),
    [
        ({"metric": "recall_at_k", "minimum": 0.8}, None, "retrieval"),
        ({"metric": "groundedness", "minimum": 0.8}, None, "retrieval"),
        ({"metric": "groundedness", "minimum": 0.8}, {"default": "off"}, "retrieval.default"),
        ({"metric": "mrr", "significance": 0.05}, {}, "criteria.1.minimum"),
        ({"metric": "ndcg", "minimum": 0.5, "over_base": 0}, {}, "criteria.1.over_base"),
        ({"metric": "groundedness", "over_champion": 0}, {"default": "on"}, None),
        ({"metric": "recall_at_k", "minimum": 0.8}, {"default": "off"}, None),
    ],
)
def test_metrics_of_passages_need_retrieval(
    criterion: dict[str, Any], retrieval: dict[str, Any] | None, field: str | None
) -> None:
    asked = spec(criterion, retrieval=retrieval)
    if field is None:
        return check_criteria(asked)
    with pytest.raises(InvalidSpec) as caught:
        check_criteria(asked)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("criterion", "task"),
    [
        ({"metric": "perplexity", "maximum": 40}, {}),
        ({"metric": "rouge_l", "over_base": 0, "significance": 0.5}, {}),
        ({"metric": "invented_terms", "maximum": 0.1}, {}),
        ({"metric": "valid_output", "minimum": 1}, {"output_rules": [{"rule": "pattern", "pattern": "a"}]}),
        (
            {"metric": "label_accuracy", "minimum": 0.5},
            {"output_rules": [{"rule": "allowed_values", "values": ["a"]}]},
        ),
        ({"metric": "domain_language", "minimum": 1}, {"glossary": {"forbidden": ["a"]}}),
        ({"metric": "numeric_accuracy", "minimum": 1}, {"number_tolerance": {}}),
        ({"metric": "refusal_rate", "minimum": 1}, {"refusal": "^Sorry"}),
    ],
)
def test_measurable_criteria_pass(criterion: dict[str, Any], task: dict[str, Any]) -> None:
    check_criteria(spec(criterion, **task))


@pytest.mark.parametrize(("stated", "level"), [(0.9, 0.5), (1.0, 0.5), (0.3, 0.3)])
def test_too_large_a_significance_on_the_log_counts_as_the_largest(stated: float, level: float) -> None:
    stored = spec({"metric": "rouge_l", "over_base": 0, "significance": stated}).criteria[1]
    assert level_of(stored, on_holdout=False) == level
    assert level_of(stored, on_holdout=True) == level / 10
    assert level_of(stored, on_holdout=True, looks=4) == level / 4


def test_why_a_metric_is_not_measured() -> None:
    task = TaskSpec(system_prompt="s")
    assert unmeasurable("rouge_l", task) is None
    assert "no known metric" in str(unmeasurable("rouge", task))
    assert unmeasurable("domain_language", task) == (
        "domain_language needs task.glossary, which the project does not have"
    )

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.spec import parse_spec

TEXT = """\
project: shop
base_model: some/model
task: {system_prompt: Answer.}
criteria: [{metric: perplexity, maximum: 9}]
"""


def test_a_spec_without_retrieval_keeps_the_name_it_had() -> None:
    without, beside = parse_spec(TEXT), parse_spec(f"{TEXT}retrieval: {{}}\n")
    assert "retrieval" not in without.model_dump(mode="json")
    assert without.sha256 != beside.sha256


def test_only_what_an_index_holds_makes_another_index() -> None:
    spec = RetrievalSpec()
    for change in ({"top_k": 2}, {"template": "{passages}"}, {"cite": "answer"}, {"default": "off"}):
        other = RetrievalSpec.model_validate(change)
        assert other.indexed == spec.indexed
        assert other.sha256 != spec.sha256
    assert RetrievalSpec(passage_tokens=64).indexed != spec.indexed


def test_training_changes_what_trains_and_nothing_that_serves() -> None:
    bare, plain = parse_spec(TEXT), parse_spec(f"{TEXT}retrieval: {{}}\n")
    trained = parse_spec(f"{TEXT}retrieval: {{training: {{}}}}\n")
    assert plain.retrieval is not None
    assert trained.retrieval is not None
    assert "training" not in plain.retrieval.model_dump(mode="json")
    assert (trained.retrieval.sha256, trained.retrieval.indexed) == (
        plain.retrieval.sha256,
        plain.retrieval.indexed,
    )
    assert bare.training_sha256 == plain.training_sha256 != trained.training_sha256
    fewer = parse_spec(f"{TEXT}retrieval: {{default: 'off', training: {{distractors: 1}}}}\n")
    assert fewer.training_sha256 != trained.training_sha256
    off = parse_spec(f"{TEXT}retrieval: {{default: 'off', cite: answer, training: {{}}}}\n")
    assert off.training_sha256 == trained.training_sha256


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"budget_tokens": 100}, ["budget_tokens", "passage_tokens"]),
        ({"template": "{passage}"}, ["template", "{passages}"]),
        ({"overlap": 97}, ["overlap", "passage_tokens"]),
        ({"passage_tokens": 15}, ["passage_tokens"]),
        ({"top_k": 2, "training": {"distractors": 2}}, ["distractors", "top_k 2"]),
    ],
)
def test_impossible_settings_are_refused_by_name(given: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        RetrievalSpec.model_validate(given)
    assert all(name in str(refused.value) for name in names)

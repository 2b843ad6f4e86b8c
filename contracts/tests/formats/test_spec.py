from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.methods import TrainMethod, parameters_named
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "project-spec" / "valid" / "helpdesk.json"


def _raw(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), **changes}


def _spec(**changes: Any) -> ProjectSpec:
    return parse_spec(yaml.safe_dump(_raw(**changes)))


def test_yaml_becomes_a_spec_with_defaults() -> None:
    spec = _spec()
    assert spec.project == "helpdesk"
    assert spec.dataset.holdout_fraction == 0.15
    assert spec.train.target_modules == "all-linear"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("project: [", "YAML"),
        ("", "mapping"),
        ("- project", "mapping"),
        ("project: 2026-13-45", "YAML"),
        ("a: !!python/object:os.system {}", "YAML"),
        ("project: a\x00b", "YAML"),
        ("[" * 20_000, "YAML"),
    ],
)
def test_a_file_that_is_no_spec_says_so(text: str, word: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(text)
    assert caught.value.field == "(file)"
    assert word in caught.value.reason


def test_the_reason_says_what_to_do() -> None:
    with pytest.raises(InvalidSpec) as caught:
        _spec(criteria=[{"metric": "rouge_l", "minimum": 0.9, "maximum": 0.1}])
    assert str(caught.value) == "criteria.0.minimum: 0.9 contradicts maximum 0.1, which is smaller; swap them"


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (
            {"languages": ["en", "jp"]},
            "dataset.languages.1: 'jp' is not a recognised language; did you mean 'ja'?",
        ),
        (
            {"languages": ["qq"]},
            "dataset.languages.0: 'qq' is not a recognised language; give an ISO 639-1 code",
        ),
        (
            {"pii": {"entities": ["EMAIL"]}},
            "dataset.pii.entities.0: 'EMAIL' has no pattern recogniser; choose",
        ),
        (
            {"benchmarks": [{"name": "theirs", "path": "datasets/ds-1/a.jsonl"}]},
            "dataset.benchmarks.0.path: datasets/ds-1/a.jsonl is not below benchmarks/",
        ),
    ],
)
def test_values_that_no_build_supports_are_refused(dataset: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(told)):
        _spec(dataset=dataset)
    ProjectSpec.model_validate(_raw(dataset=dataset))  # what is on the log already stays valid


@pytest.mark.parametrize("targets", ["q_proj", [], [1], ["q_proj", None], 7])
def test_layers_to_adapt_are_a_list_of_names_and_the_reason_says_so(targets: Any) -> None:
    with pytest.raises(InvalidSpec, match=r"a list of layers' names such as \[q_proj, v_proj\]$") as caught:
        _spec(train={"target_modules": targets})
    assert caught.value.field == "train.target_modules"
    assert _spec(train={"target_modules": ["q_proj"]}).train.target_modules == ("q_proj",)


@pytest.mark.parametrize("rule", ["pattern", "cited"])
def test_a_pattern_that_no_build_knows_is_not_declared(rule: str) -> None:
    raw = _raw()
    raw["task"]["output_rules"] = [{"rule": "table", "columns": ["a"]}, {"rule": rule, "pattern": r"^\d+\Z"}]
    with pytest.raises(InvalidSpec, match=r"^task\.output_rules\.1\.pattern: .*unrecognized escape sequence"):
        parse_spec(yaml.safe_dump(raw))
    ProjectSpec.model_validate(raw)  # what is on the log already stays valid


LARGE = "Qwen/Qwen3-8B"


def test_to_learn_fast_without_replay_is_cautioned_against() -> None:
    (caution,) = _spec(base_model=LARGE, train={"learning_rate": 0.001}).cautions
    assert caution.startswith("train.learning_rate 0.001 is above 0.0001 and dataset.replay is not set")
    assert _spec(base_model=LARGE, train={"learning_rate": 1e-4}).cautions == ()
    replay = {"replay": {"source": "general.jsonl"}}
    assert _spec(base_model=LARGE, train={"learning_rate": 0.001}, dataset=replay).cautions == ()


SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_rate_that_teaches_a_small_base_nothing_is_cautioned_against() -> None:
    (caution,) = _spec(base_model=SMALL, train={}).cautions
    assert caution.startswith("train.learning_rate 0.0001 teaches an adapter of so small a base")
    assert "write 0.002" in caution
    (mild,) = _spec(base_model=SMALL, train={"learning_rate": 0.002}).cautions
    assert "dataset.replay" in mild
    for base in ("Qwen/Qwen3-8B", "/models/own", "a/SmolLM2-1.7B", "a/b-135Mish", "a/v0.3-2501"):
        assert _spec(base_model=base, train={}).cautions == (), base
    assert _spec(base_model=SMALL, train={"method": "full"}).cautions == ()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (SMALL, 135e6),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9),
        ("google/gemma-3-270m-it", 270e6),
        ("Qwen/Qwen3-4B", 4e9),
        ("microsoft/phi-4", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7e9),
    ],
)
def test_a_name_may_state_the_size(name: str, parameters: float | None) -> None:
    assert parameters_named(name) == parameters


def test_all_weights_learn_at_a_rate_of_their_own_and_are_cautioned_of_above_it() -> None:
    rates = {
        method: _spec(base_model=LARGE, train={"method": method.value}).train.learning_rate
        for method in TrainMethod
    }
    assert rates == {TrainMethod.LORA: 1e-4, TrainMethod.QLORA: 1e-4, TrainMethod.FULL: 1e-5}
    full = _spec(base_model=LARGE, train={"method": "full"})
    assert full.cautions == ()
    # the rate is resolved where the spec is read, so the log keeps it whatever a later default is
    assert json.loads(full.model_dump_json())["train"]["learning_rate"] == 1e-5
    written = _spec(base_model=LARGE, train={"method": "full", "learning_rate": 1e-5})
    assert written.sha256 == full.sha256
    old = ProjectSpec.model_validate_json(
        _spec(base_model=LARGE, train={"method": "full", "learning_rate": 1e-4}).model_dump_json()
    )
    assert old.train.learning_rate == 1e-4
    (caution,) = old.cautions
    assert caution.startswith("train.learning_rate 0.0001 is above 2e-05")


def test_large_steps_of_an_adapter_are_cautioned_against() -> None:
    large = {"batch_size": 64, "micro_batch_size": 8}
    (caution,) = _spec(base_model=LARGE, train=large | {"method": "qlora"}).cautions
    assert caution.startswith("train.batch_size 64 is above 32")
    assert _spec(base_model=LARGE, train=large | {"method": "full"}).cautions == ()
    assert _spec(base_model=LARGE, train={"batch_size": 32}).cautions == ()


def test_a_preference_of_nothing_is_a_rule_and_none_is_none() -> None:
    for wanted in (0, 0.5, None):
        spec = _spec(review={"min_preference": wanted})
        assert ProjectSpec.model_validate_json(spec.model_dump_json()).review.min_preference == wanted
    assert _spec(review={"min_preference": None}).sha256 == _spec(review={}).sha256


def test_the_hash_follows_content_not_form() -> None:
    reordered = dict(reversed(_raw().items()))
    assert parse_spec(yaml.safe_dump(reordered, sort_keys=False)).sha256 == _spec().sha256
    assert _spec(description="another").sha256 != _spec().sha256


def test_saying_a_default_changes_no_hash() -> None:
    assert _spec(review={"required": False, "sample": 20}).sha256 == _spec().sha256
    undecided = {"enabled": True, "requests": 2000, "days": 7}
    assert _spec(rollout={"undecided": undecided}).sha256 == _spec(rollout={}).sha256
    assert _spec(rollout={"undecided": undecided | {"days": 8}}).sha256 != _spec(rollout={}).sha256
    assert "undecided" not in _spec(rollout={}).rollout.model_dump()  # older hashes hold


def test_criteria_are_hashed_apart_from_the_rest() -> None:
    looser = [{"metric": "valid_output", "minimum": 0.5}]
    assert _spec(description="another").criteria_sha256 == _spec().criteria_sha256
    assert _spec(criteria=looser).criteria_sha256 != _spec().criteria_sha256
    task = {"task": "quiz", "path": "benchmarks/quiz", "sha256": "a" * 64}
    tasks = [[task], [task | {"sha256": "b" * 64}], [task | {"limit": 5}]]
    hashes = {_spec(evaluation={"lm_eval": one}).criteria_sha256 for one in tasks}
    assert len(hashes | {_spec().criteria_sha256}) == 4


def test_a_judge_is_hashed_into_the_criteria_that_name_it() -> None:
    plain = {"base_url": "http://judge.example/v1", "model": "m"}
    judges = [plain, plain | {"model": "n"}, plain | {"prompt": "Prefer the shorter."}]
    named = [{"metric": "judged", "minimum": 0.5}]
    hashes = {_spec(evaluation={"judge": one}, criteria=named).criteria_sha256 for one in judges}
    assert len(hashes) == 3
    moved = plain | {"base_url": "http://elsewhere.example/v1", "min_reviewed": 40}
    assert _spec(evaluation={"judge": moved}, criteria=named).criteria_sha256 in hashes
    assert {_spec(evaluation={"judge": one}).criteria_sha256 for one in judges} == {_spec().criteria_sha256}
    assert "judge" not in _spec().evaluation.model_dump()  # older hashes hold


@pytest.mark.parametrize(
    ("review", "metric", "warned"),
    [
        ({}, "judged", True),
        ({"required": True}, "judged", True),
        ({"override": True}, "judged", False),
        ({}, "rouge_l", False),
    ],
)
def test_a_judge_that_nobody_would_measure_gives_a_warning(
    review: dict[str, Any], metric: str, warned: bool
) -> None:
    judge = {"base_url": "http://judge.example/v1", "model": "m", "min_reviewed": 7}
    named = [{"metric": metric, "minimum": 0.5}]
    cautions = _spec(evaluation={"judge": judge}, criteria=named, review=review).cautions
    assert any("compared 7 pairs" in one and "review.override" in one for one in cautions) == warned


def test_a_spec_keeps_its_hash_and_its_nulls_over_the_wire() -> None:
    spec = _spec()
    again = decode_data(ProjectSpec, spec.model_dump_json().encode())
    assert again == spec
    assert again.sha256 == spec.sha256
    assert spec.dataset.build.quiet_seconds is None


def test_nan_in_a_schema_is_refused() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(yaml.safe_dump(_raw()).replace("minLength: 1", "minLength: .nan"))
    assert caught.value.field == "task.output_schema"


@pytest.mark.parametrize(
    ("schema", "field", "word"),
    [
        ({"type": "strin"}, "task.output_schema.type", "'strin'"),
        ({"properties": {"a": {"enum": "x"}}}, "task.output_schema.properties.a.enum", "array"),
        ({"items": {"pattern": "("}}, "task.output_schema.items.pattern", "regex"),
        ({"not": {"pattern": "a(?=b)"}}, "task.output_schema", "look-around"),
        ({"patternProperties": {"^a": True}}, "task.output_schema", "propertyNames"),
        ({"$ref": "#"}, "task.output_schema", "endlessly"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "task.output_schema", "'#/$defs/b'"),
        ({"$ref": "http://localhost/schema.json"}, "task.output_schema", "put the definition under $defs"),
    ],
)
def test_a_schema_that_no_answer_can_be_checked_with_is_refused(
    schema: dict[str, Any], field: str, word: str
) -> None:
    task = {"system_prompt": "Answer as JSON.", "output_schema": schema}
    with pytest.raises(InvalidSpec) as caught:
        _spec(task=task, criteria=[{"metric": "valid_output", "minimum": 0.9}])
    assert caught.value.field == field
    assert word in caught.value.reason


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"type": "object", "properties": {"kids": {"items": {"$ref": "#/$defs/kid"}}}}
    schema = tree | {"$defs": {"kid": {"$ref": "#"}}}
    task = {"system_prompt": "Answer as JSON.", "output_schema": schema}
    spec = _spec(task=task, criteria=[{"metric": "valid_output", "minimum": 0.9}])
    assert spec.task.output_schema == schema


def test_a_revision_is_of_a_hugging_face_dataset_only() -> None:
    plain, pinned = (
        _spec(dataset={"replay": {"source": "owner/name"} | more}) for more in ({}, {"revision": "v1"})
    )
    assert plain.sha256 != pinned.sha256
    assert "revision" not in plain.model_dump(mode="json")["dataset"]["replay"]  # older hashes hold
    for source in ("general.jsonl", "https://example.com/general"):
        with pytest.raises(InvalidSpec, match="is a file; pin it by sha256") as caught:
            _spec(dataset={"replay": {"source": source, "revision": "v1"}})
        assert caught.value.field == "dataset.replay.revision"


def test_only_a_run_that_continues_from_the_champion_rehearses_and_the_names_of_others_stay():
    assert _spec(train={"continue_from": "champion", "rehearsal": 0.0}).train.rehearsal == 0.0
    for start in (None, "helpdesk-acba25512100"):
        with pytest.raises(InvalidSpec) as caught:
            _spec(train={"continue_from": start, "rehearsal": 0.5})
        assert caught.value.field == "train.rehearsal"
    assert "rehearsal" not in _spec(train={"continue_from": "champion"}).train.model_dump()


VALUES = {"rule": "allowed_values", "values": ["bell", "horn"]}


@pytest.mark.parametrize(
    ("task", "is_taken"),
    [
        ({"label_field": "category"}, True),
        ({"output_rules": [VALUES]}, True),
        ({"output_rules": [VALUES | {"field": "category"}]}, False),
        ({}, False),
    ],
)
def test_only_a_task_with_labels_abstains(task: dict[str, Any], is_taken: bool) -> None:
    changes = {"task": {"system_prompt": "Answer."} | task, "serving": {"abstain": {"risk": 0.05}}}
    if is_taken:
        assert _spec(**changes).serving.abstain is not None
        return
    with pytest.raises(InvalidSpec, match="needs answers that can be right or wrong") as caught:
        _spec(**changes)
    assert caught.value.field == "serving.abstain"


ELSEWHERE = {"base_url": "https://models.example/v1", "model": "large-1"}


@pytest.mark.parametrize(
    ("abstain", "field"),
    [
        ({}, "risk"),
        ({"risk": 0}, "risk"),
        ({"risk": 0.5}, "risk"),
        ({"risk": 0.05, "to": "boss"}, "to"),
        ({"risk": 0.05, "unknown": 0.5}, "unknown"),
        ({"risk": 0.05, "threshold": 0.9}, "threshold"),
        ({"risk": 0.05, "reply": ""}, "reply"),
        ({"risk": 0.05, "to": "endpoint"}, "endpoint"),
        ({"risk": 0.05, "endpoint": ELSEWHERE}, "endpoint"),
        ({"risk": 0.05, "to": "label", "endpoint": ELSEWHERE}, "endpoint"),
        ({"risk": 0.05, "to": "endpoint", "endpoint": ELSEWHERE | {"api_key": "x"}}, "endpoint.api_key"),
        ({"risk": 0.05, "to": "endpoint", "endpoint": ELSEWHERE | {"model": "a\r\nb: c"}}, "endpoint.model"),
        (
            {"risk": 0.05, "to": "endpoint", "endpoint": ELSEWHERE | {"api_key_env": "HF_TOKEN"}},
            "endpoint.api_key_env",
        ),
        (
            {"risk": 0.05, "to": "endpoint", "endpoint": ELSEWHERE | {"base_url": "https://me:pw@h/v1"}},
            "endpoint.base_url",
        ),
    ],
)
def test_a_wrong_abstention_is_refused_by_its_field(abstain: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        _spec(task={"system_prompt": "Answer.", "label_field": "category"}, serving={"abstain": abstain})
    assert caught.value.field == f"serving.abstain.{field}"


@pytest.mark.parametrize(
    "given",
    [
        {"enable_thinking": None},
        {"enable_thinking": ["a"]},
        {"effort": float("inf")},
        {"effort": "x" * 257},
        {"Enable": True},
        {"a-b": True},
        {"messages": "x"},
        {"bos_token": "x"},
        {"chat_template": "x"},
        {"true": False},
        {"none": 1},
        {"self": "x"},
        {"namespace": 1},
        {"raise_exception": False},
        {f"a{n}": n for n in range(17)},
    ],
)
def test_a_template_variable_is_a_small_value_with_a_name_of_its_own(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec) as caught:
        _spec(task={**_raw()["task"], "chat_template_kwargs": given})
    assert caught.value.field.startswith("task.chat_template_kwargs")


def test_a_spec_with_template_variables_trains_another_model() -> None:
    task = _raw()["task"]
    usual, none = _spec(), _spec(task={**task, "chat_template_kwargs": {}})
    quiet = _spec(task={**task, "chat_template_kwargs": {"enable_thinking": False, "effort": "low", "n": 2}})
    assert quiet.task.chat_template_kwargs == {"enable_thinking": False, "effort": "low", "n": 2}
    assert type(quiet.task.chat_template_kwargs["enable_thinking"]) is bool
    assert usual.training_sha256 == none.training_sha256 != quiet.training_sha256
    assert usual.sha256 == none.sha256


def test_criteria_are_part_of_what_training_makes_only_where_they_reward() -> None:
    def made(minimum: float, **train: Any) -> ProjectSpec:
        return _spec(criteria=[{"metric": "rouge_l", "minimum": minimum}], train=train)

    assert made(0.1).training_sha256 == made(0.2).training_sha256
    rewarded = [made(minimum, reward={}).training_sha256 for minimum in (0.1, 0.2)]
    assert len({*rewarded, made(0.1).training_sha256}) == 3
    assert "reward" not in made(0.1).model_dump(mode="json")["train"]


@pytest.mark.parametrize(
    ("train", "field"),
    [
        ({"method": "full", "reward": {}}, "train.reward"),
        ({"preference": {}, "reward": {}}, "train.reward"),
        ({"reward": {"answers": 1}}, "train.reward.answers"),
        ({"reward": {"steps": 1_954, "prompts": 16, "answers": 32}}, "train.reward.steps"),
        ({"reward": {"steps": 123, "prompts": 1024}}, "train.reward.steps"),
        ({"reward": {"beta": 0}}, "train.reward.beta"),
    ],
)
def test_a_reward_that_cannot_be_trained_is_refused(train: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        _spec(train=train)
    assert refused.value.field == field

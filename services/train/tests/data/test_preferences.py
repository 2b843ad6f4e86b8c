"""Preference training: pairs encoded, the adapter moved, the run resumed."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
import torch
from tunewheel_contracts.formats.recipe import PreferenceSpec
from tunewheel_train.data.preferences import (
    EncodedPair,
    class_weights,
    desirable,
    encode_pairs,
    read_pairs,
)
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Progressed, Started, Warned
from tunewheel_train.trainers import checkpoints

PREFERENCE = {"beta": 0.1, "learning_rate": 5e-3, "epochs": 2.0}


def test_a_pair_is_a_prompt_and_two_answers_with_their_ends(tiny, pair_of):
    (found,), refused = encode_pairs([pair_of(1)], tiny[1], max_tokens=512)
    assert refused == []
    assert tiny[1].decode(found.prompt_ids).endswith("<|im_start|>assistant\n")
    assert tiny[1].decode(found.chosen_ids) == '{"category": "battery"}<|im_end|>'
    assert tiny[1].decode(found.rejected_ids) == "I do not know<|im_end|>"
    assert found.record_ids == ("rec-1",)


def test_what_the_assistant_wrote_earlier_is_prompt(tiny, pair_of):
    row = pair_of(1)
    row["prompt"] = [
        *row["prompt"],
        {"role": "assistant", "content": "Which?"},
        {"role": "user", "content": "Both"},
    ]
    (found,), _ = encode_pairs([row], tiny[1], max_tokens=512)
    assert "Which?" in tiny[1].decode(found.prompt_ids)
    assert tiny[1].decode(found.chosen_ids) == '{"category": "battery"}<|im_end|>'


def test_equal_answers_and_long_ones_are_refused(tiny, pair_of):
    rows = [pair_of(1), pair_of(2, rejected='{"category": "battery"}'), pair_of(3, rejected="word " * 400)]
    kept, refused = encode_pairs(rows, tiny[1], max_tokens=200)
    assert [p.pair_id for p in kept] == ["pair-1"]
    assert [(r.example_id, r.field) for r in refused] == [
        ("pair-2", "dataset.preferences"), ("pair-3", "train.max_tokens"),
    ]  # fmt: skip


def test_no_pair_that_can_be_used_names_the_field(tiny, pair_of):
    with pytest.raises(RunFailed, match="leaves none of 1 pairs") as caught:
        encode_pairs([pair_of(1)], tiny[1], max_tokens=5)
    assert caught.value.field == "train.max_tokens"


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_broken_file_names_the_dataset(tmp_path: Path, content: bytes):
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(RunFailed, match="build the dataset again") as caught:
        read_pairs(tmp_path / "p.parquet")
    assert caught.value.field == "dataset.preferences"


def test_a_dataset_without_pairs_names_the_recipe(case):
    with pytest.raises(RunFailed, match="has no pairs") as caught:
        case(preference=PREFERENCE).train()
    assert caught.value.field == "train.preference"


def test_an_example_is_a_desirable_answer(encoded, tiny):
    found = desirable(encoded[0])
    (side,) = found.sides()
    assert (side.input_ids, side.mask) == (encoded[0].input_ids[:-1], encoded[0].mask[:-1])  # the line break
    assert tiny[1].decode(found.chosen_ids) == '{"category": "billing"}<|im_end|>'
    assert len(found) == len(side)


@pytest.mark.parametrize(
    ("told", "weights"),
    [
        ({}, (1.0, 0.25)),
        ({"desirable_weight": 2.0}, (2.0, 0.5)),
        ({"undesirable_weight": 0.1}, (0.4, 0.1)),
        ({"desirable_weight": 3.0, "undesirable_weight": 5.0}, (3.0, 5.0)),
    ],
    ids=["by their numbers", "desirable", "undesirable", "both"],
)
def test_both_kinds_of_answers_weigh_alike_unless_the_recipe_says_otherwise(told, weights):
    desirable, undesirable = (1, 2), (3, 4)
    pairs = [EncodedPair("p", (0,), desirable, (), ())] * 3
    pairs += [EncodedPair("p", (0,), (), undesirable, ())] * 15
    pairs.append(EncodedPair("p", (0,), desirable, undesirable, ()))  # 4 and 16
    found = class_weights(pairs, PreferenceSpec.model_validate({"method": "kto"} | told))
    assert found == pytest.approx(weights)
    if len(told) < 2:
        assert 1 <= found[0] * 4 / (found[1] * 16) * (1 + 1e-9) <= 4 / 3


@pytest.fixture(scope="module")
def preferred(cases, pairs_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """(run, outcome) of training on examples and then on pairs, uninterrupted."""
    run = cases(tmp_path_factory.mktemp("preferred"))(preference=PREFERENCE, preferences_path=pairs_path)
    return run, run.train()


def test_the_chosen_answer_becomes_the_likelier_one(preferred):
    run, outcome = preferred
    assert outcome.steps == 6 + 4
    assert [m.step for m in run.heard(Progressed)] == list(range(1, 11))
    assert outcome.metrics["preference_accuracy"] == 1.0
    assert outcome.metrics["preference_margin"] > 0
    assert outcome.metrics["preference_loss"] < 0.69  # log 2, before anything is learnt
    assert outcome.metrics["final_loss"] < outcome.metrics["first_loss"]
    assert {p.name for p in run.job.output_dir.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tunewheel.json",
    }  # fmt: skip
    assert not [name for name in run.weights() if ".ref." in name]


def test_preference_training_begins_where_the_examples_ended(preferred, trained):
    run, _ = preferred
    begun = checkpoints.candidates(run.job.work_dir)[0] / checkpoints.REFERENCE
    from safetensors.torch import load_file

    reference = {name.replace(".default.", "."): value for name, value in load_file(begun).items()}
    expected = trained("lora")[0].weights()
    assert len(expected) == len(reference)
    assert all(torch.equal(reference[name], value) for name, value in expected.items())


@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.nightly("matrices")), 8])
def test_a_run_resumed_in_either_stage_ends_with_the_same_weights(preferred, case, pairs_path, step):
    options = {"preference": PREFERENCE, "preferences_path": pairs_path}
    case(**options).stop_after(step)
    resumed = case(**options)
    outcome = resumed.train()
    assert [m.resumed_from_step for m in resumed.heard(Started)] == [step]
    assert outcome.metrics["final_loss"] == preferred[1].metrics["final_loss"]
    assert outcome.tokens == preferred[1].tokens
    expected = preferred[0].weights()
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in expected.items())


def test_pairs_alone_train_from_the_base(case, pair_of, pairs_path, tmp_path: Path):
    with_bad = tmp_path / "with-bad.parquet"
    rows = [*pl.read_parquet(pairs_path).to_dicts(), pair_of(99, rejected='{"category": "battery"}')]
    pl.DataFrame(rows).write_parquet(with_bad)
    run = case(preference=PREFERENCE | {"alone": True}, preferences_path=with_bad)
    outcome = run.train()
    assert outcome.steps == 4
    assert outcome.metrics["final_loss"] == outcome.metrics["preference_loss"]
    assert run.heard(Progressed)[0].loss == pytest.approx(math.log(2), abs=1e-3), "nothing has moved yet"
    (warning,) = run.heard(Warned)
    assert warning.reason.startswith("1 of 9 preference pairs are not trained on; pair-99")

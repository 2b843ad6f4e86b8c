"""ORPO and KTO: their losses, what they learn, and that an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from tunewheel_train.data.preferences import encode_answers, encode_pairs
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Completed, Planned, Progressed, Started
from tunewheel_train.trainers import checkpoints

METHODS = ("orpo", "kto")


def preference(method: str, **changes: Any) -> dict[str, Any]:
    steps = {"beta": 0.1, "learning_rate": 5e-3, "epochs": 2.0, "alone": True}
    return {"preference": steps | {"method": method} | changes, "checkpoint_steps": 2}


@pytest.fixture(scope="module")
def preferred(cases, pairs_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """(run, outcome) of training on the pairs alone by a method, uninterrupted."""
    done: dict[str, tuple[Any, Completed]] = {}

    def run(method: str) -> tuple[Any, Completed]:
        if method not in done:
            folder = tmp_path_factory.mktemp(method)
            one = cases(folder)(**preference(method), preferences_path=pairs_path)
            done[method] = one, one.train()
        return done[method]

    return run


@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_answer_becomes_the_likelier_one(preferred, method: str):
    run, outcome = preferred(method)
    assert outcome.steps == 4
    assert [m.step for m in run.heard(Progressed)] == [1, 2, 3, 4]
    assert outcome.metrics["final_loss"] == outcome.metrics["preference_loss"] < outcome.metrics["first_loss"]
    assert outcome.metrics["preference_margin"] > 0
    assert not [name for name in run.weights() if ".ref." in name]


def test_a_run_on_pairs_alone_is_planned_by_them_and_teaches_no_estimate(preferred):
    run, outcome = preferred("orpo")
    (planned,) = run.heard(Planned)
    assert planned.plan.tokens == outcome.tokens
    assert not outcome.usage.comparable


def test_each_method_tells_what_it_measures(preferred):
    orpo, kto = preferred("orpo")[1].metrics, preferred("kto")[1].metrics
    assert orpo["preference_accuracy"] == 1.0
    assert 0 < orpo["preference_nll"] < orpo["first_loss"]
    assert "preference_kl" not in orpo
    assert kto["preference_kl"] > 0
    assert kto["first_loss"] == pytest.approx(0.5)  # sigmoid(0), before anything is learnt
    assert "preference_accuracy" not in kto


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(preferred, case, pairs_path, method: str):
    whole, outcome = preferred(method)
    options = preference(method) | {"preferences_path": pairs_path}
    case(**options).stop_after(3)
    resumed = case(**options)
    again = resumed.train()
    assert [m.resumed_from_step for m in resumed.heard(Started)] == [3]
    assert again.metrics["preference_loss"] == outcome.metrics["preference_loss"]
    assert again.tokens == outcome.tokens
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in whole.weights().items())


def test_only_what_is_held_to_a_model_keeps_it_in_its_checkpoints(preferred):
    for method, kept in (("orpo", False), ("kto", True)):
        newest = checkpoints.candidates(preferred(method)[0].job.work_dir)[0]
        assert (newest / checkpoints.REFERENCE).exists() is kept


@pytest.mark.parametrize("method", METHODS)
def test_a_step_means_the_same_in_smaller_pieces(preferred, case, pairs_path, method: str):
    whole, _ = preferred(method)
    pieces = case(**preference(method), preferences_path=pairs_path, micro_batch_size=1)
    pieces.train()
    losses = [m.loss for m in pieces.heard(Progressed)]
    assert losses == pytest.approx([m.loss for m in whole.heard(Progressed)], abs=1e-4)


def test_odds_ratios_of_packed_and_padded_pairs_agree(preferred, case, pairs_path):
    whole, _ = preferred("orpo")
    padded = case(**preference("orpo"), preferences_path=pairs_path, packed=False)
    padded.train()
    losses = [m.loss for m in padded.heard(Progressed)]
    assert losses == pytest.approx([m.loss for m in whole.heard(Progressed)], abs=1e-3)


def test_the_odds_ratio_is_trls(monkeypatch):
    from tunewheel_train.trainers.orpo_trainer import odds_ratio_loss

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = -torch.rand(16) * 4, -torch.rand(16) * 4
    frame: Any = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    weighed, _, _, _, log_odds = ORPOTrainer.odds_ratio_loss(frame, chosen, rejected)
    losses, found = odds_ratio_loss(chosen, rejected, 0.3)
    torch.testing.assert_close(losses, -chosen - weighed)
    torch.testing.assert_close(found.mean(), log_odds)


def test_an_answer_that_is_certain_has_a_gradient():
    from tunewheel_train.trainers.orpo_trainer import odds_ratio_loss

    chosen = torch.zeros(1, requires_grad=True)
    losses, _ = odds_ratio_loss(chosen, torch.full((1,), -3.0), 0.1)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert chosen.grad is not None
    assert torch.isfinite(chosen.grad).all()


def test_a_whole_model_learns_odds_ratios_after_the_examples(case, pairs_path):
    run = case(method="full", learning_rate=1e-3, preferences_path=pairs_path,
               **preference("orpo", alone=False, learning_rate=1e-3))  # fmt: skip
    outcome = run.train()
    assert outcome.steps == 6 + 4
    assert outcome.metrics["preference_accuracy"] > 0.5
    assert {p.name for p in run.job.output_dir.iterdir()} >= {"config.json", "model.safetensors"}


def rated_down(pair_of, count: int, folder: Path, rejected: str = "Go away") -> Path:
    """A file of so many answers to avoid, with nothing to prefer to them."""
    rows = [pair_of(number, rejected) for number in range(20, 20 + count)]
    path = folder / "negatives.parquet"
    pl.DataFrame(rows).drop("chosen").rename({"pair_id": "negative_id"}).write_parquet(path)
    return path


def test_an_answer_that_was_rated_down_is_undesirable_by_itself(
    cases, pairs_path, pair_of, tmp_path: Path
) -> None:
    paths = {"preferences_path": pairs_path, "negatives_path": rated_down(pair_of, 4, tmp_path)}
    options = preference("kto", epochs=1.0) | paths
    whole = cases(tmp_path / "whole")(**options)
    outcome = whole.train()
    assert outcome.steps == 3, "of four, as eight pairs have two"
    assert outcome.metrics["preference_kl"] >= 0
    assert outcome.metrics["undesirable_weight"] == pytest.approx(8 / 12)
    pieces = cases(tmp_path / "pieces")(**options, micro_batch_size=1)
    pieces.train()
    losses = [m.loss for m in whole.heard(Progressed)]
    assert [m.loss for m in pieces.heard(Progressed)] == pytest.approx(losses, abs=1e-4)


def test_without_a_pair_the_examples_are_what_is_desirable(cases, pair_of, tmp_path: Path) -> None:
    run = cases(tmp_path)(**preference("kto", epochs=1.0), negatives_path=rated_down(pair_of, 4, tmp_path))
    outcome = run.train()
    assert outcome.steps == 7, "of four, as there are 24 examples and four negatives"
    assert outcome.metrics["desirable_weight"] == pytest.approx(4 / 24)
    assert outcome.metrics["undesirable_weight"] == 1.0
    assert outcome.metrics["preference_kl"] >= 0


def test_answers_rated_down_that_are_all_too_long_name_the_field(case, pair_of, tmp_path: Path) -> None:
    path = rated_down(pair_of, 2, tmp_path, rejected="word " * 400)
    with pytest.raises(RunFailed, match="leaves none of 2 answers rated down") as caught:
        case(**preference("kto"), negatives_path=path, max_tokens=200).train()
    assert caught.value.field == "train.max_tokens"


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_what_learns_from_pairs_refuses_answers_without_one(
    case, pair_of, tmp_path: Path, method: str
) -> None:
    with pytest.raises(RunFailed, match="has only answers that were rated down; choose kto") as caught:
        case(**preference(method), negatives_path=rated_down(pair_of, 2, tmp_path)).train()
    assert caught.value.field == "train.preference.method"


def test_every_pair_is_measured_against_another_of_its_step(tiny, pair_of):
    from tunewheel_train.trainers.kto_trainer import KtoTrainer

    (*pairs, pair_of_3), _ = encode_pairs([pair_of(number) for number in range(4)], tiny[1], max_tokens=512)
    trainer: Any = SimpleNamespace(course=SimpleNamespace(items=pairs))
    arranged = KtoTrainer.arrange(trainer, pairs)
    assert [(m.pair.pair_id, m.other.pair_id) for m in arranged] == [
        ("pair-0", "pair-2"), ("pair-1", "pair-0"), ("pair-2", "pair-1"),
    ]  # fmt: skip
    (alone,) = KtoTrainer.arrange(trainer, pairs[:1])
    assert (alone.pair.pair_id, alone.other.pair_id) == ("pair-0", "pair-1")
    desirable, undesirable = alone.as_rows()
    assert (desirable["label"], undesirable["label"]) == (True, False)
    unpaired = {key: value for key, value in pair_of(3).items() if key != "chosen"}
    (negative,), _ = encode_answers([unpaired], tiny[1], max_tokens=512)
    assert (negative.prompt_ids, negative.rejected_ids) == (pair_of_3.prompt_ids, pair_of_3.rejected_ids)
    arranged = KtoTrainer.arrange(trainer, [pairs[0], negative])
    assert [[row["label"] for row in item.as_rows()] for item in arranged] == [[True, False], [False]]
    assert all(row["KL_completion_ids"] for item in arranged for row in item.as_rows())
    assert KtoTrainer.weight_of(trainer, arranged) == 3
    assert desirable["KL_completion_ids"] == list(pairs[1].chosen_ids)


def test_one_pair_is_too_few_to_measure_how_far_the_model_has_moved(case, pair_of, tmp_path: Path):
    pl.DataFrame([pair_of(1)]).write_parquet(tmp_path / "one.parquet")
    with pytest.raises(RunFailed, match="choose dpo") as caught:
        case(**preference("kto"), preferences_path=tmp_path / "one.parquet").train()
    assert caught.value.field == "train.preference.method"

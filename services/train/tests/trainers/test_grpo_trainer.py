"""GRPO: what a model learns by rewards, which weights a run keeps, and that a killed run ends like others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tunewheel_contracts.formats.task_spec import TaskSpec
from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.prompts import prompts_of
from tunewheel_train.data.schedule import plan_prompts
from tunewheel_train.errors import RunFailed
from tunewheel_train.progress import Completed, Planned, Progressed, Started, Warned
from tunewheel_train.trainers import checkpoints

LETTERS = "ab"
TASK = TaskSpec.model_validate(
    {
        "system_prompt": "Answer with a letter.", "max_output_tokens": 1,
        "output_rules": [{"rule": "allowed_values", "values": list(LETTERS)}],
    }
)  # fmt: skip


def row(number: int, answer: str | None = None) -> dict[str, Any]:
    """A question whose answer is the letter that it begins with."""
    letter = LETTERS[number % 2]
    return {
        "example_id": f"ex-{number:03}",
        "messages": [
            {"role": "system", "content": TASK.system_prompt},
            {"role": "user", "content": f"{letter * 3} {number}"},
            {"role": "assistant", "content": answer or letter},
        ],
    }


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("letters") / "train.parquet"
    pl.DataFrame([row(number) for number in range(100)]).write_parquet(path)
    return path


NUMBERS = TaskSpec.model_validate(
    TASK.model_dump(mode="json")
    | {
        "number_tolerance": {"absolute": 0.1},
        "output_rules": [{"rule": "allowed_values", "values": ["1", "2", "a"]}],
    }
)


def numbered(folder: Path, *, letters: int) -> Path:
    """Rows whose answers are numbers, but for one of ``letters``."""
    path = folder / "train.parquet"
    rows = [row(n, str(1 + n % 2) if n % letters else "a") for n in range(100)]
    pl.DataFrame(rows).write_parquet(path)
    return path


def options(letters: Path, *metrics: str, **reward: Any) -> dict[str, Any]:
    asked = {"steps": 4, "prompts": 4, "answers": 4, "learning_rate": 5e-3} | reward
    return {
        "train_path": letters, "reward": asked, "validation_fraction": 0.45, "checkpoint_steps": 2,
        "rewarded": {"task": TASK.model_dump(mode="json"), "metrics": metrics or ("label_accuracy",)},
        "epochs": 1.0, "batch_size": 16, "micro_batch_size": 16, "patience": 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def learnt(cases, letters: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Completed]:
    run = cases(tmp_path_factory.mktemp("grpo"))(**options(letters))
    return run, run.train()


def of_reward(run: Any) -> list[Progressed]:
    return [message for message in run.heard(Progressed) if message.figures]


def test_every_step_tells_the_parts_of_its_reward(learnt):
    run, outcome = learnt
    (planned,) = run.heard(Planned)
    (started,) = run.heard(Started)
    told = of_reward(run)
    assert [message.step for message in told] == list(range(started.total_steps - 3, started.total_steps + 1))
    expected = {"label_accuracy", "kl", "answer_tokens", "same_score"}
    assert all(expected <= message.figures.keys() for message in told)
    assert all(0 <= message.figures["same_score"] <= 1 for message in told)
    assert all(0 <= message.figures["label_accuracy"] <= 1 for message in told)
    assert all(message.figures["answer_tokens"] == 1 for message in told)
    validated = [message.step for message in told if "validation_label_accuracy" in message.figures]
    assert validated == [started.total_steps - 2, started.total_steps]
    assert not any(message.validation_loss for message in told)
    assert planned.plan.tokens > outcome.tokens > 0
    assert not outcome.usage.comparable
    assert outcome.metrics["reward_kl"] >= 0
    assert {"final_loss", "validation_loss", "validation_label_accuracy_before"} <= outcome.metrics.keys()
    assert not [name for name in run.weights() if ".ref." in name]


def test_a_resumed_run_draws_the_same_answers_and_ends_with_the_same_weights(learnt, case, letters: Path):
    whole, outcome = learnt
    first = of_reward(whole)[0].step
    case(**options(letters)).stop_after(first + 2)
    resumed = case(**options(letters))
    again = resumed.train()
    assert [m.resumed_from_step for m in resumed.heard(Started)] == [first + 2]
    assert [m.figures for m in of_reward(resumed)] == [m.figures for m in of_reward(whole)[3:]]
    assert again.metrics["reward_kl"] == outcome.metrics["reward_kl"]
    assert again.tokens == outcome.tokens
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in whole.weights().items())


def test_the_answers_that_are_rewarded_become_likelier(case, letters: Path):
    asked = options(letters, steps=8, answers=8, learning_rate=1e-2)
    run = case(**asked | {"checkpoint_steps": 4})
    outcome = run.train()
    shares = [message.figures["label_accuracy"] for message in of_reward(run)]
    assert sum(shares[4:]) > sum(shares[:4])
    assert outcome.metrics["reward_kept"] == 1.0
    assert outcome.metrics["reward_validation"] > outcome.metrics["validation_label_accuracy_before"] + 0.3


def test_a_reward_that_is_met_by_worse_answers_leaves_the_adapter_of_the_examples(case, letters: Path):
    """Either letter has the whole reward, to whatever question."""
    from safetensors.torch import load_file

    asked = options(
        letters, "valid_output", steps=20, answers=8, learning_rate=5e-2, beta=1e-6, temperature=2.0
    )
    run = case(**asked | {"epochs": 12.0, "checkpoint_steps": 5})
    outcome = run.train()
    assert outcome.metrics["validation_label_accuracy_before"] > 0.8
    validated = [m.figures for m in of_reward(run) if "validation_valid_output" in m.figures]
    assert max(one["validation_label_accuracy"] for one in validated) < 0.8
    told = [warning.reason for warning in run.heard(Warned)]
    assert any("label_accuracy on" in reason and "fell from" in reason for reason in told)
    assert told[-1] == "keeps the adapter of the examples: no later step was better"
    assert outcome.metrics["reward_kept"] == 0.0
    assert outcome.steps < run.heard(Started)[0].total_steps  # it stopped early
    began = load_file(checkpoints.candidates(run.job.work_dir)[0] / checkpoints.REFERENCE)
    kept = {name.replace(".default", ""): value for name, value in began.items()}
    assert run.weights().keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in run.weights().items())


def test_validation_rows_to_which_no_criterion_applies_do_not_count(case, tmp_path: Path):
    asked = options(numbered(tmp_path, letters=7), "numeric_accuracy", steps=2)
    asked["rewarded"]["task"] = NUMBERS.model_dump(mode="json")
    run = case(**asked)
    metrics = run.train().metrics
    assert 0 <= metrics["reward_validation"] <= 1
    assert 0 <= metrics["reward_numeric_accuracy"] <= 1
    assert all("validation_numeric_accuracy" in message.figures for message in of_reward(run)[1:])


def test_too_few_validation_rows_to_which_a_criterion_applies_are_refused(case, tmp_path: Path):
    asked = options(numbered(tmp_path, letters=1), "numeric_accuracy")
    asked["rewarded"]["task"] = NUMBERS.model_dump(mode="json")
    with pytest.raises(RunFailed, match=r"applies, with room for .* there are 0 and 0") as caught:
        case(**asked).train()
    assert caught.value.field == "train.reward"


@pytest.mark.parametrize(("context", "count"), [(None, 24), (60, 24), (50, 0)])
def test_prompts_that_leave_no_room_for_an_answer_are_not_asked(case, letters: Path, context, count: int):
    """A model with learned positions cannot write beyond its context."""
    from tunewheel_train import preparation

    job = case(**options(letters)).job
    task = TASK.model_copy(update={"max_output_tokens": 20})
    job = job.model_copy(update={"rewarded": job.rewarded.model_copy(update={"task": task})})
    rows = [row(number) for number in range(24)]
    examples = [Encoded(one["example_id"], (1,) * 41, (0,) * 40 + (1,)) for one in rows]
    if not count:
        with pytest.raises(RunFailed, match=r"room for task\.max_output_tokens") as caught:
            preparation._to_reward(job, examples, examples, rows, context)
        assert caught.value.field == "train.reward"
        return
    assert [len(some) for some in preparation._to_reward(job, examples, examples, rows, context)] == [
        count
    ] * 2


@pytest.mark.parametrize(("place", "steps"), [("begin", 0), ("take_back", 4)])
def test_a_run_that_is_killed_at_either_end_of_the_stage_goes_on_as_if_it_had_not(
    learnt, case, letters: Path, monkeypatch, place: str, steps: int
):
    from tunewheel_train.trainers.grpo_trainer import GrpoTrainer

    def killed(self: Any) -> Any:
        raise KeyboardInterrupt

    whole, outcome = learnt
    with monkeypatch.context() as patched:
        patched.setattr(GrpoTrainer, place, killed)
        with pytest.raises(KeyboardInterrupt):
            case(**options(letters)).train()
    resumed = case(**options(letters))
    again = resumed.train()
    assert [m.resumed_from_step for m in resumed.heard(Started)] == [of_reward(whole)[0].step - 1 + steps]
    assert [m.figures for m in of_reward(resumed)] == [m.figures for m in of_reward(whole)[steps:]]
    told = "tokens_per_second"
    assert {**again.metrics, told: 0} == {**outcome.metrics, told: 0}
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in whole.weights().items())


def test_held_back_rows_and_rows_that_fail_the_criteria_are_not_asked():
    from tunewheel_outputs.reward import reward_parts

    others = [row(2) | {"format": kind} for kind in ("replay", "chunk", "question", "code_summary")]
    rows = [row(0), row(1, "neither") | {"format": "answer"}, *others, row(3)]
    examples = [Encoded(one["example_id"], (1, 2), (0, 1), record_ids=("r",)) for one in rows]
    parts = reward_parts(["valid_output", "label_accuracy", "perplexity"], TASK)
    assert list(parts) == ["valid_output", "label_accuracy"]
    found = prompts_of(examples[:-1], {one["example_id"]: one for one in rows}, parts)
    assert [(prompt.expected, prompt.record_ids) for prompt in found] == [("a", ("r",))]
    assert found[0].scores("b", parts) == {"valid_output": 1.0, "label_accuracy": 0.0}
    assert len(prompts_of(examples, {one["example_id"]: one for one in rows}, {})) == 3


def test_every_prompt_is_asked_as_often_as_another():
    steps = plan_prompts(6, per_step=4, steps=6, seed=3)
    assert [len(step) for step in steps] == [4] * 6
    asked = [index for step in steps for index in step]
    assert sorted(asked) == sorted([*range(6)] * 4)
    assert asked != asked[:6] * 4
    assert (
        plan_prompts(6, per_step=4, steps=6, seed=3) == steps != plan_prompts(6, per_step=4, steps=6, seed=4)
    )


@pytest.mark.parametrize(("metrics", "rows"), [(("perplexity",), 100), (("label_accuracy",), 30)])
def test_too_little_to_reward_is_refused(case, tmp_path: Path, metrics: tuple[str, ...], rows: int):
    path = tmp_path / "train.parquet"
    pl.DataFrame([row(number) for number in range(rows)]).write_parquet(path)
    with pytest.raises(RunFailed) as caught:
        case(**options(path, *metrics)).train()
    assert caught.value.field in ("train.reward", "train.validation_fraction")


def test_several_processes_are_refused(case, letters: Path, monkeypatch):
    from tunewheel_train import preparation

    run = case(**options(letters))
    base: Any = type("Base", (), {"path": Path(run.job.base_model)})()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunFailed, match="set TUNEWHEEL_TRAIN_PROCESSES=1"):
        preparation.prepare(base, run.job, lambda message: None)


def test_a_checkpoint_keeps_the_model_with_which_the_stage_began(learnt):
    run, _ = learnt
    newest = checkpoints.candidates(run.job.work_dir)[0]
    assert (newest / checkpoints.REFERENCE).exists()
    state = json.loads((newest / checkpoints.STATE).read_text())
    assert state["stage"] == "reward"
    assert "validation_label_accuracy_before" in state["metrics"]


@pytest.mark.parametrize("at_once", [4, 6, 16, 100])
def test_smaller_micro_batches_write_fewer_answers_at_once(monkeypatch, at_once: int):
    from trl.trainer.grpo_trainer import GRPOTrainer
    from tunewheel_train.trainers.grpo_trainer import GrpoTrainer

    sizes = list[int]()

    def written(self: Any, asked: list[list[int]], *beside: Any) -> Any:
        sizes.append(len(asked))
        return [[*prompt, 0] for prompt in asked], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", written)
    trainer = object.__new__(GrpoTrainer)
    trainer._at_once = at_once
    asked = [[number] for number in range(16)]
    answers, _ = trainer._generate_single_turn(asked, None, {}, 4)
    assert answers == [[number, 0] for number in range(16)]
    assert (sum(sizes), max(sizes)) == (16, min(at_once, 16))

"""Runs the two stages of a run: training on examples, then on pairs of answers or by a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerState
from tunewheel_planner.plan import parts_of

from tunewheel_train.data.schedule import plan_prompts, plan_steps
from tunewheel_train.data.validation import Patience
from tunewheel_train.errors import RunStopped
from tunewheel_train.job import Job
from tunewheel_train.model import modeling
from tunewheel_train.model.machine import device_facts
from tunewheel_train.model.process_group import wait_for_all
from tunewheel_train.preparation import Prepared, over_limit
from tunewheel_train.progress import Started
from tunewheel_train.trainers import checkpoints, handover, trl_config
from tunewheel_train.trainers.answering import LABELS, label_hits
from tunewheel_train.trainers.checkpoint_writer import CheckpointWriter
from tunewheel_train.trainers.course import Course
from tunewheel_train.trainers.frame import Frame
from tunewheel_train.trainers.progress_callback import ProgressCallback


def train(frame: Frame, prepared: Prepared) -> Any:
    """Run the stages, starting from the newest checkpoint; return the trainer of the last stage.

    Raises RunFailed, or RunStopped after a checkpoint was written.
    """
    recipe = frame.job.recipe
    newest = checkpoints.latest(frame.job.work_dir, recipe.method)
    state: dict[str, Any] = checkpoints.read_state(newest) if newest else {"stage": "examples"}
    examples, then = courses(frame.job, prepared)
    frame.report(_started(frame, prepared, (then or examples).total_steps, newest))
    trainer: Any = None
    if examples.steps and state["stage"] == "examples":
        trainer = _train_on_examples(frame, examples, newest)
        examples.metrics = _example_metrics(trainer)
    if then is None:
        if (tried := frame.job.tried) and tried.task and (prompts := prepared.validation_prompts):
            try:
                examples.label_hits = label_hits(trainer, frame, tried.task, prompts)
            except RunStopped as error:
                if examples.is_over_limit:
                    raise over_limit(frame.job, error.step, examples.total_steps) from error
                raise
            rows = [hit for group in examples.label_hits for hit in group]
            examples.metrics |= {f"validation_{LABELS}": fmean(rows), "labelled_examples": float(len(rows))}
        return trainer
    then.metrics = examples.metrics or dict(state.get("metrics", {}))
    _carry(examples, then)
    begun = newest if newest and state["stage"] == then.stage else None
    trainer = _train_further(frame, then, begun)
    then.metrics |= (_preference_metrics if then.stage == "preferences" else _reward_metrics)(trainer)
    return trainer


def courses(job: Job, prepared: Prepared) -> tuple[Course, Course | None]:
    """Return the courses of both stages. Without examples the first course has no steps."""
    recipe, preference, reward = job.recipe, job.recipe.preference, job.recipe.reward

    def steps(items: Sequence[Any], epochs: float) -> list[list[int]]:
        lengths = [len(item) for item in items]
        return plan_steps(lengths, batch_size=recipe.batch_size, epochs=epochs, seed=recipe.seed)

    alone = preference is not None and preference.alone
    first = [] if alone else steps(prepared.examples, recipe.epochs)
    then = steps(prepared.pairs, preference.epochs) if preference else []
    if reward is not None:
        asked = len(prepared.prompts)
        then = plan_prompts(asked, per_step=reward.prompts, steps=reward.steps, seed=recipe.seed)
    parts = parts_of(recipe.method, "cuda" if torch.cuda.is_available() else "cpu")
    total = len(first) + len(then)
    examples = Course(
        prepared.examples, first, recipe.micro_batch_size, total_steps=total, epochs=recipe.epochs,
        keep=recipe.keep_checkpoints, validation=prepared.validation, patience=Patience(recipe.patience),
        method=recipe.method.value, parts=parts, limit_hours=job.limit_hours,
        until=max(1, round(len(first) * job.tried.part)) if job.tried else None,
        spent_seconds=job.tried.spent_hours * 3600 if job.tried else 0.0,
        validate_every=prepared.validating.every_steps if prepared.validating else 0,
    )  # fmt: skip
    if not then:
        return examples, None
    course = Course(
        prepared.pairs, then, recipe.micro_batch_size, stage="preferences", first_step=len(first),
        total_steps=total, epochs=preference.epochs if preference else 1.0, keep=recipe.keep_checkpoints,
        method=recipe.method.value, parts=parts, limit_hours=job.limit_hours,
    )  # fmt: skip
    if reward is not None:
        course = replace(
            course, items=prepared.prompts, stage="reward", validation=prepared.validation_prompts,
            validate_every=recipe.checkpoint_steps, patience=Patience(recipe.patience),
            epochs=reward.steps * reward.prompts / len(prepared.prompts),
        )  # fmt: skip
    return examples, course


def _started(frame: Frame, prepared: Prepared, total: int, resumed: Path | None) -> Started:
    device, driver, cuda = device_facts()
    return Started(
        total_steps=total,
        resumed_from_step=checkpoints.step_of(resumed) if resumed else 0,
        dtype=frame.precision,
        examples=len(prepared.examples),
        tokens_per_epoch=sum(len(example) for example in prepared.examples),
        kernels=frame.kernels.told(),
        device=device,
        driver=driver,
        cuda=cuda,
    )


def _train_on_examples(frame: Frame, course: Course, begun: Path | None) -> Any:
    from tunewheel_train.trainers.sft_trainer import SftTrainer

    rate = frame.job.recipe.learning_rate
    trainer = SftTrainer(
        course=course, model=frame.model, processing_class=frame.tokenizer,
        **frame.rows_for([*course.items, *course.validation]),
        args=trl_config.examples_config(_arguments(frame, course, rate)),
        train_dataset=trl_config.as_dataset([{"input_ids": list(e.input_ids)} for e in course.items]),
    )  # fmt: skip
    modeling.prepare_parameters(trainer.model)
    _run(trainer, frame, begun)
    return trainer


def _train_further(frame: Frame, course: Course, begun: Path | None) -> Any:
    """``begun`` is the newest checkpoint if it belongs to this stage. It has the reference weights, which
    keep the model close to where the stage began."""
    modeling.leave_packed_rows(frame.model)
    if begun is not None and (begun / checkpoints.REFERENCE).exists():
        checkpoints.put_weights(frame.model, begun / checkpoints.REFERENCE)
    if course.stage == "reward":
        return _train_by_reward(frame, course, begun)
    preference = frame.job.recipe.preference
    assert preference is not None
    trainer = import_module(f"tunewheel_train.trainers.{preference.method}_trainer").make_trainer(
        frame, preference, _arguments(frame, course, preference.learning_rate), course=course,
        model=frame.model, processing_class=frame.tokenizer,
        train_dataset=trl_config.as_dataset([pair.as_row() for pair in course.items]),
    )  # fmt: skip
    modeling.prepare_parameters(trainer.model)
    _run(trainer, frame, begun)
    return trainer


def _train_by_reward(frame: Frame, course: Course, begun: Path | None) -> Any:
    from tunewheel_train.trainers.grpo_trainer import rewarded_trainer

    reward = frame.job.recipe.reward
    assert reward is not None
    arguments = _arguments(frame, course, reward.learning_rate)
    trainer = rewarded_trainer(frame, reward, arguments, course=course, model=frame.model)
    modeling.prepare_parameters(trainer.model)
    if begun is None:
        trainer.begin()
    _run(trainer, frame, begun)
    course.metrics["reward_kept"] = float(not trainer.take_back())
    return trainer


def _arguments(frame: Frame, course: Course, rate: float) -> dict[str, Any]:
    return trl_config.trl_arguments(
        frame.job, total_steps=len(course.steps), learning_rate=rate, precision=frame.precision
    )


def _run(trainer: Any, frame: Frame, resumed: Path | None) -> None:
    """Train to the end of the course or until early stopping, then load the best weights. ``resumed`` is the
    newest checkpoint if it belongs to this stage."""
    course, work_dir = trainer.course, frame.job.work_dir
    trainer.add_callback(ProgressCallback(trainer, frame.report, frame.should_stop))
    if not course.tokens_seen:
        course.count_seconds_from(0.0)
    if resumed is not None and _was_at_its_end(resumed, course):
        checkpoints.load_weights(trainer, resumed)
        trainer.state = TrainerState.load_from_json(str(resumed / checkpoints.TRAINER_STATE))
    else:
        with CheckpointWriter(work_dir, frame.report) as trainer.writer:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        wait_for_all()  # the other processes read the checkpoints of the first
    done = trainer.state.global_step
    if done < course.end and not course.patience.over:
        if course.is_over_limit:
            raise over_limit(frame.job, course.first_step + done, course.total_steps)
        raise RunStopped(course.first_step + done)
    course.ended(done)
    best = course.patience.best_step
    if best is not None:
        handover.share_step(work_dir, best)
    if best is not None and (directory := checkpoints.at_step(work_dir, best)):
        checkpoints.put_weights(trainer.model, directory / checkpoints.WEIGHTS)


def _was_at_its_end(checkpoint: Path, course: Course) -> bool:
    course.patience.restore(checkpoints.read_state(checkpoint)["validation"])
    last = course.first_step + course.end
    return checkpoints.step_of(checkpoint) >= last or course.patience.over


def _carry(before: Course, after: Course) -> None:
    """Copy the counters of one stage to the next."""
    if before.tokens_seen:
        after.tokens_seen, after.resumed_from = before.tokens_seen, before.resumed_from
        after.step_seconds, after.step_tokens = before.step_seconds, before.step_tokens
        after.count_seconds_from(before.seconds)


def _example_metrics(trainer: Any) -> dict[str, float]:
    """``final_loss`` is the mean of the last tenth of the steps."""
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 10) :]
    metrics = {"final_loss": sum(tail) / len(tail), "first_loss": losses[0]}
    if trainer.course.patience.best_step is None:
        return metrics
    loss, rows = trainer.course.patience.best_loss, float(len(trainer.course.validation))
    return metrics | {"validation_loss": loss, "validation_examples": rows}


def _reward_metrics(trainer: Any) -> dict[str, float]:
    """Return means over the last tenth of the steps: the score by each criterion, tokens of an answer, the KL
    estimate; and the score on validation prompts of the model that is kept."""
    told = [trainer.figures(entry) for entry in trainer.state.log_history if "loss" in entry]
    tail = told[-max(1, len(told) // 10) :]
    names = dict.fromkeys(name for one in tail for name in one)
    means = {f"reward_{name}": fmean(one[name] for one in tail if name in one) for name in names}
    return means | {"reward_validation": 1 - trainer.course.patience.best_loss}


_PREFERENCE_METRICS = {
    "preference_loss": "loss",
    "preference_accuracy": "rewards/accuracies",
    "preference_margin": "rewards/margins",
    "preference_kl": "kl",
    "preference_nll": "nll",
}
_WEIGHTS = ("desirable_weight", "undesirable_weight")


def _preference_metrics(trainer: Any) -> dict[str, float]:
    """Return means over the last tenth of the steps, depending on the method: the loss; how often and by how
    much the chosen answer is preferred (KTO: in steps with both kinds); the KL estimate and the weight of
    either kind (KTO); the chosen answer's loss per token (ORPO). ``final_loss`` is set if no examples were
    trained on."""
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    tail = entries[-max(1, len(entries) // 10) :]
    found = {
        name: sum(told) / len(told)
        for name, key in _PREFERENCE_METRICS.items()
        if (told := [float(entry[key]) for entry in tail if key in entry])
    }
    found |= {name: getattr(trainer, name) for name in _WEIGHTS if hasattr(trainer, name)}
    first = {"first_loss": float(entries[0]["loss"]), "final_loss": found["preference_loss"]}
    return found | ({} if "final_loss" in trainer.course.metrics else first)

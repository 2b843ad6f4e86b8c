"""TRL's GRPOTrainer on planned prompts: answers that score above the mean of their prompt become likelier
(arXiv:2402.03300).

A reward is met wherever it can be met most easily. So every checkpoint is measured on validation prompts,
whose answers are never rewarded, and counts only if the guard (the labels, or the likeness to the expert's
answer) has not fallen since the stage began. The best of these checkpoints is kept, or the model with which
the stage began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from tunewheel_contracts.formats.recipe import RewardSpec
from tunewheel_outputs.reward import Part, guard_of, reward_parts

from tunewheel_train.data.prompts import Prompt
from tunewheel_train.data.schedule import micro_batches
from tunewheel_train.progress import Message, Warned
from tunewheel_train.trainers import trl_config
from tunewheel_train.trainers.answering import asking_tokenizer, greedy_answers
from tunewheel_train.trainers.course import Course
from tunewheel_train.trainers.frame import Frame
from tunewheel_train.trainers.stepping import OwnCheckpoints

BEFORE = "validation_{}_before"
Parts = Mapping[str, Part]
TOLD = {"kl": "kl", "completions/mean_length": "answer_tokens", "frac_reward_zero_std": "same_score"}


def rewarded_trainer(
    frame: Frame, reward: RewardSpec, arguments: dict[str, Any], *, course: Course, **trl: Any
) -> GrpoTrainer:
    rewarded, recipe = frame.job.rewarded, frame.job.recipe
    assert rewarded is not None
    parts = reward_parts(rewarded.metrics, rewarded.task)
    answers = reward.prompts * reward.answers
    micro = next(size for size in range(recipe.micro_batch_size, 0, -1) if answers % size == 0)
    sizes = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": answers // micro}
    told: dict[str, Any] = {name: arguments[name] for name in arguments if name != "max_length"} | sizes
    config = GRPOConfig(
        **told, num_generations=reward.answers, max_completion_length=rewarded.task.max_output_tokens,
        beta=reward.beta, temperature=reward.temperature, reward_weights=[1 / len(parts)] * len(parts),
        shuffle_dataset=False, disable_dropout=True, generation_kwargs={"use_cache": True},
    )  # fmt: skip
    guard = reward_parts([guard_of(rewarded.task)], rewarded.task)
    planned = [index for step in course.steps for index in step]
    return GrpoTrainer(
        course=course, parts=parts, guard=guard, report=frame.report, args=config,
        at_once=min(recipe.micro_batch_size, reward.prompts) * reward.answers,
        reward_funcs=[_scoring(name, course.items, part) for name, part in parts.items()],
        processing_class=asking_tokenizer(frame),
        train_dataset=trl_config.as_dataset(
            [{"prompt": list(course.items[index].messages), "number": index} for index in planned]
        ),
        **trl,
    )  # fmt: skip


def _scoring(name: str, prompts: Sequence[Prompt], part: Part) -> Callable[..., list[float | None]]:
    """Return the reward as a function of TRL's, which logs it by its ``__name__``."""

    def score(completions: Sequence[Any], number: Sequence[int], **_: Any) -> list[float | None]:
        answers = [answer[0].get("content") or "" for answer in completions]
        return [part(prompts[at].row(answer)) for at, answer in zip(number, answers, strict=True)]

    score.__name__ = name
    return score


class GrpoTrainer(OwnCheckpoints, GRPOTrainer):
    """Trains the adapter of a PEFT model on its own answers to the prompts of ``course``. The reference is
    the adapter before the first step, which TRL keeps as a second, frozen adapter ``ref``.

    TRL answers a step's prompts when the step begins, and a checkpoint is written when it has ended: so a
    resumed run draws the answers that an uninterrupted one draws.
    """

    def __init__(
        self, *, parts: Parts, guard: Parts, report: Callable[[Message], None], at_once: int, **trl: Any
    ) -> None:
        """``at_once``: so many answers are written in one batch, which smaller micro-batches make smaller."""
        self._at_once = at_once
        self._parts = parts
        self._measured = {**parts, **guard}
        (self._guard,) = guard
        self._report = report
        self._validated: dict[str, float] = {}
        super().__init__(**trl)

    def begin(self) -> None:
        """Measure the model with which the stage begins."""
        loss, guard = self._measure()
        self.course.metrics[BEFORE.format(self._guard)] = guard
        self.course.patience.saw(loss, self.course.first_step)
        self._validated = {}

    def validate(self) -> float:
        """Return one minus the mean score of the answers to the validation prompts, drawn greedily; infinity
        if the guard has fallen."""
        loss, guard = self._measure()
        before = self.course.metrics[BEFORE.format(self._guard)]
        if guard >= before:
            return loss
        reason = (
            f"does not keep step {self.course.first_step + self.state.global_step}: {self._guard} on "
            f"{len(self.course.validation)} validation prompts fell from {before:.3f} to {guard:.3f}, while "
            f"the reward there is {1 - loss:.3f}; look whether the criteria can be met by worse answers"
        )
        self._report(Warned(reason=reason))
        return math.inf

    def take_back(self) -> bool:
        """Give the model the weights with which the stage began, if no checkpoint was better. Return whether
        none was."""
        if self.course.patience.best_step != self.course.first_step:
            return False
        model: Any = self.model
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                if ".ref." in name:
                    weights[name.replace(".ref.", ".default.")].copy_(value)
        self._report(Warned(reason="keeps the adapter of the examples: no later step was better"))
        return True

    def figures(self, logs: Mapping[str, Any]) -> dict[str, float]:
        told = {f"rewards/{name}/mean": name for name in self._parts} | TOLD
        found = {name: float(logs[key]) for key, name in told.items() if logs.get(key) is not None}
        validated, self._validated = self._validated, {}
        return {name: value for name, value in (found | validated).items() if math.isfinite(value)}

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        before = self.state.num_input_tokens_seen
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.course.counted(int(self.state.num_input_tokens_seen - before))
        return loss

    def _generate_single_turn(self, prompt_ids: Sequence[Any], *beside: Any, **more: Any) -> Any:
        written: list[Any] = []
        for some in micro_batches(prompt_ids, self._at_once):
            written += super()._generate_single_turn(some, *beside, **more)[0]
        return written, None  # without vLLM there are no probabilities of the writing model

    def _measure(self) -> tuple[float, float]:
        """Return (one minus the mean score, the guard) of greedy answers to the validation prompts."""
        prompts: Sequence[Prompt] = self.course.validation
        found = [
            prompt.scores(answer, self._measured)
            for prompt, answer in zip(prompts, self._answers(prompts), strict=True)
        ]
        means = {name: _mean(one[name] for one in found) for name in self._measured}
        self._validated = {f"validation_{name}": value for name, value in means.items()}
        return 1 - _mean(_mean(one[name] for name in self._parts) for one in found), means[self._guard]

    def _answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return greedy answers, in batches of the size in which a step's answers are written."""
        tokenizer: Any = self.processing_class
        model: Any = self.accelerator.unwrap_model(self.model)
        return [
            answer
            for some in micro_batches(prompts, self._at_once)
            for answer in greedy_answers(model, tokenizer, some, most_tokens=self.max_completion_length)
        ]


def _mean(values: Iterable[float | None]) -> float:
    """Return the mean of the values that are known, neither None nor NaN; none: NaN."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan

"""Asks the model that is trained for its greedy answers to prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from tunewheel_basemodel.chat import on_one_day, with_variables
from tunewheel_contracts.formats.task_spec import TaskSpec
from tunewheel_outputs.reward import reward_parts

from tunewheel_train.data.prompts import Prompt
from tunewheel_train.data.schedule import micro_batches
from tunewheel_train.errors import RunStopped
from tunewheel_train.model import modeling
from tunewheel_train.model.sharding import shards_of
from tunewheel_train.progress import Answered
from tunewheel_train.trainers.frame import Frame

LABELS = "label_accuracy"
ROWS_AT_ONCE = 4
"""So many times the rows of a micro-batch are answered at once. Answers need no gradients, and a step with
many rows takes hardly longer than one with few."""


def asking_tokenizer(frame: Frame) -> Any:
    """Return the tokenizer that writes prompts as the engine writes them."""
    return on_one_day(with_variables(frame.tokenizer, frame.job.chat_template_kwargs))


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, most_tokens: int | None
) -> list[str]:
    """Return the answers of ``model`` to ``prompts``, written in one batch. They end at a token that ends an
    answer for the tokenizer or for the model, or after ``most_tokens``."""
    if not prompts:
        return []
    told = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *([told] if isinstance(told, int) else told or [])]
    config = GenerationConfig(
        max_new_tokens=most_tokens, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
        use_cache=True, disable_compile=True,
    )  # fmt: skip
    was_training = model.training
    model.eval()
    asked = tokenizer.apply_chat_template(
        [list(one.messages) for one in prompts], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    batch = tokenizer.pad({"input_ids": asked}, padding_side="left", return_tensors="pt").to(model.device)
    with torch.no_grad():
        written = model.generate(**batch, generation_config=config)
    model.train(was_training)
    return tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def label_hits(
    trainer: Any, frame: Frame, task: TaskSpec, prompts: Sequence[Prompt]
) -> tuple[tuple[float, ...], ...]:
    """Return for each group of ``prompts``, in their order, which answers have the expert's label (1 or 0).

    Processes that train together divide the prompts, unless each holds only a part of the model. Raises
    RunStopped, also at the run's ceiling; the weights are in the last checkpoint.
    """
    modeling.leave_packed_rows(frame.model)
    job, course, accelerator = frame.job, trainer.course, trainer.accelerator
    count, index = accelerator.num_processes, accelerator.process_index
    shared = shards_of(job.recipe, sharding=job.sharding, processes=count) == 1
    count, index = (count, index) if shared else (1, 0)
    tokenizer, score = asking_tokenizer(frame), reward_parts([LABELS], task)[LABELS]
    model = accelerator.unwrap_model(trainer.model)
    at_once = ROWS_AT_ONCE * job.recipe.micro_batch_size
    hits = torch.zeros(len(prompts), device=trainer.args.device)
    by_length = sorted(range(len(prompts)), key=lambda at: len(prompts[at].messages[-1]["content"]))
    # all processes have as many rounds: at each they decide together whether to stop
    for number, several in enumerate(micro_batches(by_length, at_once * count), 1):
        vote = torch.tensor(float(course.is_over_limit or frame.should_stop()), device=hits.device)
        if accelerator.reduce(vote, "sum").item():
            raise RunStopped(course.last_step)
        mine = several[index::count]
        with trainer.compute_loss_context_manager():
            answers = greedy_answers(
                model, tokenizer, [prompts[at] for at in mine], most_tokens=task.max_output_tokens
            )
        for at, answer in zip(mine, answers, strict=True):
            hits[at] = score(prompts[at].row(answer)) or 0.0
        frame.report(Answered(batches=number))
    told = (accelerator.reduce(hits, "sum") if shared else hits).tolist()
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, hit in zip(prompts, told, strict=True):
        groups[prompt.group].append(hit)
    return tuple(map(tuple, groups.values()))

"""The training recipe: LoRA, QLoRA or full, from Parquet files to one directory of safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.run import Usage

from tunewheel_train.data.datasets import token_stats
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.model.kernels import Kernels, choose, facts_of, use
from tunewheel_train.model.machine import installed_versions
from tunewheel_train.model.sharding import shards_of, why_whole
from tunewheel_train.progress import Completed, Message, Warned

if TYPE_CHECKING:
    from tunewheel_basemodel.locate import BaseModel
    from tunewheel_basemodel.precision import Precision

    from tunewheel_train.preparation import Prepared
    from tunewheel_train.trainers.course import Course


def train(
    job: Job, *, report: Callable[[Message], None], should_stop: Callable[[], bool] = lambda: False
) -> Completed:
    """Train and write the adapter (``full``: the whole model) to ``job.output_dir``.

    On one processor with one number of threads per process the result depends only on the job. Interruptions
    do not change it, nor does it matter whether one or two processes train an adapter. On a GPU this holds
    within rounding.

    Raises:
        RunFailed: the run cannot succeed without a change; names the field to change. RunStopped:
        ``should_stop`` returned True; ``job.work_dir`` has a checkpoint of the last finished step.
        BaseModelUnreachable: the hub does not answer.
    """
    from tunewheel_train.model.machine import demand_gpus

    demand_gpus(job.gpus)
    from tunewheel_basemodel.loading import import_bitsandbytes
    from tunewheel_basemodel.precision import compute_dtype

    import_bitsandbytes()  # before anything that imports peft
    from tunewheel_train import preparation, stages
    from tunewheel_train.model import modeling, process_group, saving
    from tunewheel_train.trainers import handover
    from tunewheel_train.trainers.frame import Frame

    # setup
    base = locate(job)
    modeling.make_deterministic(job.recipe.seed)
    # the first process takes the lock of the directory before any process looks for checkpoints
    process_group.meet(job.stuck_seconds)
    handover.share_newest(job.work_dir, job.recipe.method)
    own: Precision = compute_dtype() if job.dtype == "auto" else job.dtype
    precision: Precision = handover.from_first(own)  # nodes may differ; all use the first one's precision
    prepared = preparation.prepare(base, job, report)
    job = preparation.follow_plan(job, prepared, precision, report)
    said = handover.from_first(
        job.model_dump(mode="json", include={"recipe", "gradient_checkpointing", "limit_hours"})
    )
    job = Job.model_validate(job.model_dump() | said)
    _warn_of_idle(job, report)
    model, tokenizer = modeling.load(
        base, job.recipe, precision=precision, start_from=job.start_from, shards=_shards(job, report)
    )
    kernels = choose(facts_of(prepared.config.get("model_type"), job.recipe, precision))
    use(kernels, model)
    # train
    frame = Frame(job, model, tokenizer, precision, report, should_stop, kernels)
    trainer = stages.train(frame, prepared)
    # cleanup
    if job.tried is None:
        saving.save(trainer, base, precision, job.output_dir)
        if trainer.accelerator.is_main_process:
            _describe(job, base, precision)
    alone = trainer.accelerator.num_processes == 1 or job.processes == 0
    comparable = not (job.recipe.preference or job.recipe.reward) and alone
    usage = _usage(trainer.course, comparable=comparable)
    return _completed(trainer.course, prepared, precision, kernels, usage)


def _shards(job: Job, report: Callable[[Message], None]) -> int:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    reason = why_whole(job.recipe)
    if job.sharding != "none" and processes > 1 and reason is not None:
        report(Warned(reason=f"every process holds the whole model: {reason}"))
    return shards_of(job.recipe, sharding=job.sharding, processes=processes)


def _warn_of_idle(job: Job, report: Callable[[Message], None]) -> None:
    """Warn if some processes have nothing to do: a step is divided into whole examples."""
    processes, batch = int(os.environ.get("WORLD_SIZE", "1")), job.recipe.batch_size
    if processes > batch:
        idle = f"{processes - batch} of {processes} processes have nothing to do"
        report(Warned(reason=f"{idle}: train.batch_size is {batch}; raise it, or use fewer processes"))


def locate(job: Job) -> BaseModel:
    """Return the base model's files at the job's revision.

    Raises RunFailed naming ``base_model``, or BaseModelUnreachable, in which case the model may be fine.
    """
    from tunewheel_basemodel.errors import BaseModelNotFound, BaseModelUnreachable
    from tunewheel_basemodel.locate import locate_base_model

    try:
        return locate_base_model(job.base_model, cache_dir=job.cache_dir, revision=job.base_revision)
    except BaseModelUnreachable:
        raise
    except BaseModelNotFound as error:
        raise RunFailed(field="base_model", reason=error.reason) from error


def _usage(course: Course, *, comparable: bool) -> Usage:
    from tunewheel_train.model.machine import peak_bytes

    rate = course.step_tokens / course.step_seconds if course.step_seconds else 0.0
    return Usage(tokens_per_second=rate, peak_bytes=peak_bytes(), comparable=comparable)


def _completed(
    course: Course, prepared: Prepared, precision: str, kernels: Kernels, usage: Usage
) -> Completed:
    examples, patience = token_stats(prepared.examples), course.patience
    metrics = {
        **course.metrics,
        "examples": float(examples.examples),
        "longest_example_tokens": float(examples.longest),
        "tokens_per_second": course.tokens_seen / max(course.seconds, 1e-9),
    }
    return Completed(
        steps=course.last_step,
        tokens=course.tokens_seen,
        wall_seconds=course.seconds,
        dtype=precision,
        metrics=metrics,
        versions=installed_versions() | {f"kernels.{name}": used for name, used in kernels.told().items()},
        resumed_from_steps=course.resumed_from,
        usage=usage,
        stopped_early_at=course.stopped_early_at,
        best_step=patience.best_step,
        spared_steps=prepared.spared_steps,
        label_hits=course.label_hits,
    )


def _describe(job: Job, base: BaseModel, precision: str) -> None:
    """Write ``tunewheel.json``: the base and its form (precision, quantisation) that serving the adapter
    needs."""
    described: dict[str, Any] = {
        "base_model": base.name,
        "base_revision": base.revision,
        "quantization": job.recipe.method.traits.quantization,
        "dtype": precision,
        "run_id": job.run_id,
    }
    temporary = job.output_dir / ".tunewheel.json"
    temporary.write_text(json.dumps(described, indent=1, sort_keys=True))
    os.replace(temporary, job.output_dir / "tunewheel.json")

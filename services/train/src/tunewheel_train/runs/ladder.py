"""The ladder of changes when memory is not enough. A run goes down one rung after each failure:

1. smaller micro-batches, halved down to one example: the same optimizer steps, but slower
2. gradient checkpointing: activations are computed twice instead of kept
3. QLoRA instead of LoRA, if ``on_out_of_memory`` is ``quantize``: this gives another model, and the adapter's
   metadata says so
"""

from __future__ import annotations

from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.run import Adjustment

from tunewheel_train.job import Job


def next_rung(job: Job, plan: TrainPlan | None, *, after_step: int) -> tuple[Job, Adjustment] | None:
    """Return the job that needs less memory, and the change; None: there is no further rung.

    ``plan`` has the values that were used where the job left the choice to the plan.
    """
    if plan is not None and job.gradient_checkpointing is None:
        recipe = job.recipe.model_copy(update={"micro_batch_size": plan.micro_batch_size})
        job = job.model_copy(update={"recipe": recipe, "gradient_checkpointing": plan.gradient_checkpointing})
    recipe = job.recipe
    if recipe.on_out_of_memory == "fail":
        return None
    if recipe.micro_batch_size > 1:
        smaller = _half(recipe.batch_size, recipe.micro_batch_size)
        shrunk = recipe.model_copy(update={"micro_batch_size": smaller})
        changed = {"recipe": shrunk, "gradient_checkpointing": bool(job.gradient_checkpointing)}
        return _adjusted(job, changed, "micro_batch_size", str(smaller), after_step)
    if not job.gradient_checkpointing:
        return _adjusted(job, {"gradient_checkpointing": True}, "gradient_checkpointing", "true", after_step)
    if recipe.on_out_of_memory == "quantize" and recipe.method is TrainMethod.LORA:
        quantized = recipe.model_copy(update={"method": TrainMethod.QLORA})
        return _adjusted(job, {"recipe": quantized}, "method", "qlora", after_step)
    return None


def _half(batch_size: int, micro_batch_size: int) -> int:
    """Return the largest divisor of ``batch_size`` that is at most half of ``micro_batch_size``."""
    return next(size for size in range(micro_batch_size // 2, 0, -1) if batch_size % size == 0)


def _adjusted(
    job: Job, changed: dict[str, object], field: str, value: str, after_step: int
) -> tuple[Job, Adjustment]:
    return job.model_copy(update=changed), Adjustment(field=field, value=value, after_step=after_step)

"""The ladder of changes when memory is not enough. A run goes down one rung after each failure,
in the order of the planner's ``rungs``:

0. one process instead of two on a processor, if the run had the choice: half of the memory, the same weights
1. smaller micro-batches, halved down to one example: the same optimizer steps
2. gradient checkpointing: activations are computed twice instead of kept
3. QLoRA instead of LoRA, if ``on_out_of_memory`` is ``quantize``: this gives another model, and the adapter's
   metadata says so
"""

from __future__ import annotations

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import Adjustment
from tunewheel_planner.plan import rungs

from tunewheel_train.job import Job


def next_rung(job: Job, plan: TrainPlan | None, *, after_step: int) -> tuple[Job, Adjustment] | None:
    """Return the job that needs less memory, and the change; None: there is no further rung.

    ``plan`` has the values that were used where the job left the choice to the plan.
    """
    if job.recipe.on_out_of_memory == "fail":
        return None
    if plan is not None and job.processes == 0 and plan.processes > 1:
        alone: dict[str, object] = {"processes": 1}
        return _adjusted(job, alone, "processes", "1", after_step)
    if plan is not None and job.gradient_checkpointing is None:
        recipe = job.recipe.model_copy(update={"micro_batch_size": plan.micro_batch_size})
        job = job.model_copy(update={"recipe": recipe, "gradient_checkpointing": plan.gradient_checkpointing})
    recipe = job.recipe
    micro, recomputing = recipe.micro_batch_size, bool(job.gradient_checkpointing)
    for size, checkpointing in rungs(recipe):
        # each failure costs a restart: no rung that may need as much as this one did
        if checkpointing == recomputing and size <= micro // 2:
            changed = recipe.model_copy(update={"micro_batch_size": size})
            same = {"recipe": changed, "gradient_checkpointing": recomputing}
            return _adjusted(job, same, "micro_batch_size", str(size), after_step)
        if checkpointing and not recomputing and size <= micro:
            more: dict[str, object] = {"gradient_checkpointing": True}
            return _adjusted(job, more, "gradient_checkpointing", "true", after_step)
    smaller = recipe.method.traits.smaller
    if recipe.on_out_of_memory == "quantize" and smaller is not None:
        quantized = recipe.model_copy(update={"method": TrainMethod(smaller)})
        return _adjusted(job, {"recipe": quantized}, "method", smaller, after_step)
    return None


def _adjusted(
    job: Job, changed: dict[str, object], field: str, value: str, after_step: int
) -> tuple[Job, Adjustment]:
    return job.model_copy(update=changed), Adjustment(field=field, value=value, after_step=after_step)

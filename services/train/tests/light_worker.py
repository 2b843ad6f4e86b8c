"""The training process with a recipe that costs nothing: the frame is the real one, the weights are a hash.

Run as ``python light_worker.py train|locate JOB``. A step mixes its number into the digest that stands for
the weights, so that a run that lost or repeated a step ends with other bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.run import Usage
from tunewheel_contracts.identity import sha256_file
from tunewheel_planner.calibration import Correction, key
from tunewheel_planner.devices import processor
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.errors import RunFailed, RunStopped
from tunewheel_train.job import Job
from tunewheel_train.preparation import affordable_hours
from tunewheel_train.progress import Checkpointed, Completed, Message, Planned, Progressed, Started
from tunewheel_train.recipe import locate
from tunewheel_train.trainers import checkpoints
from tunewheel_train.worker import main

STEPS_PER_EPOCH = 6
DIVERGES = 0.5
"""A learning rate."""


def light_recipe(
    job: Job, *, report: Callable[[Message], None], should_stop: Callable[[], bool]
) -> Completed:
    locate(job)
    found = checkpoints.latest(job.work_dir, job.recipe.method)
    step, digest = _load(found) if found else (0, hashlib.sha256(job.train_path.read_bytes()).hexdigest())
    resumed = (*checkpoints.read_state(found)["resumed_from"], step) if found else ()
    total = math.ceil(STEPS_PER_EPOCH * job.recipe.epochs)
    until = max(1, round(total * job.tried.part)) if job.tried else total
    plan = plan_of(job)
    report(Planned(plan=plan))
    affordable_hours(job, plan)
    if job.recipe.learning_rate == DIVERGES:
        raise RunFailed(field="train.learning_rate", reason="made the loss diverge", step=1)
    report(
        Started(total_steps=total, resumed_from_step=step, dtype="float32", examples=24, tokens_per_epoch=240)
    )
    while step < until:
        step += 1
        misbehave(job, step)
        wait_at(step, job, should_stop, resumed=found is not None)
        digest = hashlib.sha256(f"{digest} {step}".encode()).hexdigest()
        report(_progress(step, total))
        stopping = should_stop() and step < until
        ends = step == until and job.tried
        if ends or step % job.recipe.checkpoint_steps == 0 or stopping:
            path = write_checkpoint(job.work_dir, step, digest, resumed, job.recipe.method)
            report(Checkpointed(step=step, path=str(path)))
        if stopping:
            raise RunStopped(step)
    if job.tried:
        return of_tried(job, until, total, resumed)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "tunewheel.json"):
        (job.output_dir / name).write_text(digest)
    return Completed(
        steps=total, tokens=total * 40, wall_seconds=1.0, dtype="float32", metrics={"final_loss": 0.5},
        versions={"devices": os.environ.get("CUDA_VISIBLE_DEVICES", "")}, resumed_from_steps=resumed,
        usage=Usage(tokens_per_second=40.0, peak_bytes=1 << 30),
    )  # fmt: skip


def of_tried(job: Job, until: int, total: int, resumed: tuple[int, ...]) -> Completed:
    """The nearer the rate is to 0.001 and the more steps there were, the lower the loss is. A step takes six
    minutes."""
    loss = 1 + abs(math.log10(job.recipe.learning_rate) + 3) - until / total / 2
    return Completed(
        steps=until, tokens=until * 40, wall_seconds=until * 360.0, dtype="float32",
        metrics={"final_loss": 0.5, "validation_loss": loss, "validation_examples": 20.0}, versions={},
        resumed_from_steps=resumed, usage=Usage(tokens_per_second=40.0, peak_bytes=1 << 30),
    )  # fmt: skip


def plan_of(job: Job) -> TrainPlan:
    """Of a machine that is large enough."""
    stats = DatasetStats(examples=24, tokens=240, longest=20, learnt=48)
    large = processor(memory_bytes=64 << 30, teraflops=1.0, bfloat16=True)
    shape = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    known = job.corrections.get(key(large.name, shape.parameters), Correction())
    return make_plan(shape, stats, job.recipe, large, correction=known)


def misbehave(job: Job, step: int) -> None:
    """What ``LIGHT_FAULT`` asks for at the second step: hang, freeze, disk, or, while a micro-batch holds
    several, oom and eat (all memory there is). ``die STORE``: the second node is killed. At every step:
    ``small``, no memory for a base that is not quantised."""
    fault = os.environ.get("LIGHT_FAULT")
    if fault == "small" and job.recipe.method.traits.quantization is None:
        raise MemoryError("DefaultCPUAllocator: can't allocate memory")
    if step != 2 or fault is None:
        return
    if fault.startswith("die ") and os.environ.get("RANK") == "1":
        die_once_a_checkpoint_is_in(Path(fault.removeprefix("die ")))
    if fault == "hang":
        signal.pause()
    if fault == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "oom" and job.recipe.micro_batch_size > 1:
        raise MemoryError("DefaultCPUAllocator: can't allocate memory")
    if fault == "eat" and job.recipe.micro_batch_size > 1:
        eaten = []
        while True:
            eaten.append(b"1" * (16 << 20))
    if fault == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


def die_once_a_checkpoint_is_in(store: Path) -> None:
    """Be killed, the first time, when another node's checkpoint is safe."""
    died = store.parent / "died"
    while not died.exists():
        if list(store.glob(f"runs/*/checkpoints/*/{checkpoints.MANIFEST}")):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)


def wait_at(step: int, job: Job, should_stop: Callable[[], bool], *, resumed: bool) -> None:
    """With ``LIGHT_WAIT``, a run that begins waits behind its first checkpoint for the signal that interrupts
    it, however long that takes; one that is resumed goes on to its end."""
    if "LIGHT_WAIT" in os.environ and not resumed and step == job.recipe.checkpoint_steps + 1:
        while not should_stop():
            time.sleep(0.005)


def _progress(step: int, total: int) -> Progressed:
    return Progressed(
        step=step, total_steps=total, epoch=step / STEPS_PER_EPOCH, loss=1 / step, learning_rate=1e-3,
        grad_norm=1.0, tokens_per_second=1.0, eta_seconds=1.0,
    )  # fmt: skip


def write_checkpoint(
    work_dir: Path, step: int, weights: str = "", resumed: tuple[int, ...] = (), method: str = "lora"
) -> Path:
    """A whole checkpoint as far as its manifest goes. What a kill leaves of one bears the name by which the
    next process knows it."""
    target = work_dir / checkpoints.name_of(step)
    scratch = work_dir / f".{target.name}"
    scratch.mkdir(parents=True)
    (scratch / checkpoints.WEIGHTS).write_text(weights)
    (scratch / checkpoints.OPTIMIZER).write_text(f"moments {step}")
    (scratch / checkpoints.STATE).write_text(json.dumps({"resumed_from": resumed, "method": method}))
    (scratch / checkpoints.TRAINER_STATE).write_text("{}")
    files = {file.name: sha256_file(file) for file in scratch.iterdir()}
    (scratch / checkpoints.MANIFEST).write_text(json.dumps({"step": step, "files": files}))
    scratch.rename(target)
    return target


def _load(checkpoint: Path) -> tuple[int, str]:
    return checkpoints.step_of(checkpoint), (checkpoint / checkpoints.WEIGHTS).read_text()


if __name__ == "__main__":
    sys.exit(main(recipe=light_recipe))

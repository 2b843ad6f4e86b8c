"""Checkpoints: everything that a resumed run needs to end with the same weights as an uninterrupted one.

    checkpoint-000020/
      trainable.safetensors   the parameters that training changes, in fp32 masters
      optimizer.safetensors   Adam's moments, named by parameter
      state.json              scheduler, optimizer scalars, random state, counters, stage, validation, losses
      trainer_state.json      transformers' own record of where it is
      reference.safetensors   DPO and KTO: the reference weights
      checkpoint.json         step, best step and SHA-256 of the other files; written last

A checkpoint is written to a scratch directory and moved into place in one step, by a thread
(``checkpoint_writer.py``). It is used only if every hash matches. Scratch directories of killed processes are
deleted when the run is resumed. No pickle is written or read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.identity import sha256_file

from tunewheel_train.model.sharding import like, reshard, whole
from tunewheel_train.trainers.random_state import random_state, restore_random_state

MANIFEST = "checkpoint.json"
WEIGHTS = "trainable.safetensors"
OPTIMIZER = "optimizer.safetensors"
REFERENCE = "reference.safetensors"
STATE = "state.json"
TRAINER_STATE = "trainer_state.json"
Unchanged = dict[str, tuple[Path, str]]
"""File and SHA-256 by name, of what stays the same in all checkpoints of a stage."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a trainer after a step, in main memory."""

    step: int
    best_step: int | None
    keep: int
    tensors: dict[str, dict[str, Any]]
    """By file and name."""
    texts: dict[str, str]
    """By file."""
    copied: bool
    """Whether training may go on before the tensors are written."""


def name_of(step: int) -> str:
    return f"checkpoint-{step:06d}"


def step_of(directory: Path) -> int:
    """Return the optimizer steps in a checkpoint directory, by its name; -1 for any other name."""
    head, _, digits = directory.name.partition("-")
    return int(digits) if head == "checkpoint" and digits.isdigit() else -1


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Return the manifest of a checkpoint if all its files have the hashes in it, else None."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        files: dict[str, str] = manifest["files"]
        whole = {WEIGHTS, OPTIMIZER, STATE, TRAINER_STATE} <= set(files) and all(
            Path(name).name == name and sha256_file(directory / name) == known
            for name, known in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def candidates(run_dir: Path) -> list[Path]:
    """Return the checkpoint directories, newest first, including damaged ones."""
    return sorted((path for path in run_dir.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)[::-1]


def latest(run_dir: Path, method: str | None = None) -> Path | None:
    """Return the newest undamaged checkpoint (of ``method``, if given)."""
    whole = (path for path in candidates(run_dir) if read_manifest(path) is not None)
    return next((path for path in whole if method is None or read_state(path)["method"] == method), None)


def at_step(run_dir: Path, step: int) -> Path | None:
    """Return the checkpoint of ``step``; None: it is missing or damaged."""
    directory = run_dir / name_of(step)
    return directory if read_manifest(directory) is not None else None


def take(trainer: Any, unchanged: Unchanged) -> Snapshot | None:
    """Return the trainer's current state without the files of ``unchanged``; None: this process does not
    write. Processes that train together call this together.

    A copy of all weights and moments would take 12 bytes per parameter of a processor's memory, so ``full``
    is not copied there.
    """
    course, main = trainer.course, trainer.accelerator.is_main_process
    copied = TrainMethod(course.method).traits.adapter or trainer.args.device.type != "cpu"
    tensors = _tensors(trainer, keep=main, copied=copied, without=unchanged)
    if not main:
        return None
    texts = {STATE: json.dumps(_scalars(trainer)), TRAINER_STATE: json.dumps(asdict(trainer.state), indent=2)}
    step = course.first_step + trainer.state.global_step
    return Snapshot(step, course.patience.best_step, course.keep, tensors, texts, copied)


def write(snapshot: Snapshot, run_dir: Path, unchanged: Unchanged) -> Path:
    """Write ``snapshot`` as a checkpoint in ``run_dir``. Afterwards ``unchanged`` has its unchanged files.

    Of the checkpoints up to this step, all but the newest ``snapshot.keep`` and the best one by validation
    are deleted. Later ones are of another method or damaged: they count for nothing, and stay.
    """
    target = run_dir / name_of(snapshot.step)
    scratch = run_dir / f".{target.name}"
    drop_unfinished(run_dir)
    try:
        scratch.mkdir(parents=True)
        files = _write_files(snapshot, scratch, unchanged)
    except BaseException:  # free the space at once: the disk may be full
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    scratch.rename(target)
    _sync(run_dir)
    if REFERENCE in files:
        unchanged[REFERENCE] = (target / REFERENCE, files[REFERENCE])
    kept = [one for one in candidates(run_dir) if step_of(one) <= snapshot.step]
    for old in kept[snapshot.keep :]:
        if step_of(old) != snapshot.best_step:
            shutil.rmtree(old, ignore_errors=True)
    return target


def drop_unfinished(run_dir: Path) -> None:
    """Delete unfinished checkpoints of killed processes. No other process may write to ``run_dir``."""
    for scratch in run_dir.glob(".checkpoint-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _write_files(snapshot: Snapshot, scratch: Path, unchanged: Unchanged) -> dict[str, str]:
    """Write a whole checkpoint, manifest included, to the disk. Return the SHA-256 of its files."""
    from safetensors.torch import save_file

    for name, (file, _) in unchanged.items():
        try:
            os.link(file, scratch / name)
        except OSError:  # a file system without links
            shutil.copyfile(file, scratch / name)
    for name, held in snapshot.tensors.items():
        save_file(held, scratch / name)
    for name, text in snapshot.texts.items():
        (scratch / name).write_text(text)
    files = {name: sha256 for name, (_, sha256) in unchanged.items()}
    files |= {name: sha256_file(scratch / name) for name in [*snapshot.tensors, *snapshot.texts]}
    manifest = {"step": snapshot.step, "best_step": snapshot.best_step, "files": files}
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    for file in (*scratch.iterdir(), scratch):
        _sync(file)
    return files


def _tensors(trainer: Any, *, keep: bool, copied: bool, without: Unchanged) -> dict[str, dict[str, Any]]:
    """Return the whole tensors of each file, gathered from all processes; empty if ``keep`` is false."""
    parameters = dict(trainable(trainer.model))
    frozen = {
        name.replace(".ref.", ".default."): value
        for name, value in trainer.model.named_parameters()
        if ".ref." in name
    }
    files = {WEIGHTS: parameters, OPTIMIZER: _moments(trainer, parameters)}
    files |= {REFERENCE: frozen} if frozen and REFERENCE not in without else {}
    # Gather one tensor at a time: a sharded model may be too large for one GPU.
    return {name: _gathered(tensors, keep=keep, copied=copied) for name, tensors in files.items()}


def _gathered(tensors: dict[str, Any], *, keep: bool, copied: bool) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if keep:
            held[name] = gathered.to("cpu", copy=copied).contiguous()
    return held


def _moments(trainer: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the optimizer's state per parameter. 8-bit optimizers keep their step counts as plain
    integers."""
    import torch

    states = _optimizer(trainer).state
    return {
        f"{name}|{key}": value if torch.is_tensor(value) else torch.tensor(value)
        for name, parameter in parameters.items()
        for key, value in states.get(parameter, {}).items()
    }


def trainable(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parameters that training changes, by name, each once."""
    reshard(model)
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def _optimizer(trainer: Any) -> Any:
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def _scalars(trainer: Any) -> dict[str, Any]:
    course = trainer.course
    scheduler = {
        key: value
        for key, value in trainer.lr_scheduler.state_dict().items()
        if isinstance(value, int | float | list | bool)
    }
    groups = [
        {"lr": group["lr"], "initial_lr": group.get("initial_lr")}
        for group in _optimizer(trainer).param_groups
    ]
    return {
        "scheduler": scheduler,
        "groups": groups,
        **random_state(),
        "tokens": course.tokens_seen,
        "seconds": course.seconds,
        "resumed_from": list(course.resumed_from),
        "stage": course.stage,
        "method": course.method,
        "validation": course.patience.state(),
        "divergence": course.divergence.state(),
        "metrics": course.metrics,
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(directory: Path) -> dict[str, Any]:
    """Return the scalars of a checkpoint that ``latest`` returned."""
    state: dict[str, Any] = json.loads((directory / STATE).read_text())
    return state


def put_weights(model: Any, file: Path) -> None:
    """Copy the tensors of ``file`` over the parameters of ``model`` that training changes."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(file)
    with torch.no_grad():
        for name, parameter in trainable(model):
            parameter.copy_(like(saved[name], parameter))


def load_weights(trainer: Any, directory: Path) -> None:
    """Put a checkpoint's parameters and counters into the trainer."""
    put_weights(trainer.model, directory / WEIGHTS)
    course, state = trainer.course, read_state(directory)
    course.tokens_seen = int(state["tokens"])
    course.resumed_from = (*state["resumed_from"], step_of(directory))
    course.count_seconds_from(float(state["seconds"]))
    course.patience.restore(state.get("validation", {}))
    course.divergence.restore(state.get("divergence", {}))


def load_optimizer(trainer: Any, directory: Path) -> None:
    """Restore Adam's moments, the learning rates and the scheduler's position."""
    from safetensors.torch import load_file

    optimizer, state = _optimizer(trainer), read_state(directory)
    moments = load_file(directory / OPTIMIZER)
    parameters = dict(trainable(trainer.model))
    for key, value in moments.items():
        name, _, moment = key.rpartition("|")
        parameter = parameters[name]
        # Adam keeps its step count on the CPU, 8-bit optimizers keep it as an integer.
        scalar = value if value.is_floating_point() else int(value) if value.dim() == 0 else value
        optimizer.state[parameter][moment] = scalar if value.dim() == 0 else like(value, parameter)
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        group.update({key: value for key, value in saved.items() if value is not None})
    trainer.lr_scheduler.load_state_dict(state["scheduler"])


def load_random_state(directory: Path) -> None:
    """Continue the random sequences where the checkpoint left them."""
    restore_random_state(read_state(directory))

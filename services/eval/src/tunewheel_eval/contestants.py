"""Loads the models of one evaluation. Each base is loaded once, and adapters are switched on it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.scorecard import Role

from tunewheel_eval.errors import UnfitCandidate, UnusableContestant
from tunewheel_eval.job import ContestantJob

if TYPE_CHECKING:
    from tunewheel_basemodel.locate import BaseModel
    from tunewheel_generation.generation import Adapter
    from tunewheel_generation.runner import Runner

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class LoadedGroup:
    """Contestants that share one loaded model. ``adapters``: each contestant's adapter by role; None: it has
    none."""

    def __init__(self, group: Sequence[ContestantJob], *, cache_dir: Path, dtype: str) -> None:
        """Load the model and every adapter of ``group``.

        Raises:
            UnfitCandidate: the candidate's files or its base do not load.
            UnusableContestant: another contestant's files do not load.
            BaseModelUnreachable: the hub does not answer. This says nothing about the candidate.
        """
        from tunewheel_basemodel.errors import BaseModelUnreachable, ModelFilesError

        candidate = next((job for job in group if job.role is Role.CANDIDATE), None)
        try:
            self.runner = _loaded(group[0], cache_dir, dtype)
            self.adapters = {job.role: self._adapter(job) for job in group}
        except ModelFilesError as error:
            if isinstance(error, BaseModelUnreachable):
                raise
            if candidate is None:
                roles = " and the ".join(job.role.value for job in group)
                raise UnusableContestant(f"the {roles} cannot be loaded: {error}") from error
            raise UnfitCandidate(field=error.field, reason=error.reason) from error

    def close(self) -> None:
        """Free the weights, before the next group is loaded."""
        del self.runner, self.adapters
        gc.collect()

    def _adapter(self, job: ContestantJob) -> Adapter | None:
        from tunewheel_basemodel.errors import InvalidAdapter
        from tunewheel_generation.generation import Adapter, BaseForm
        from tunewheel_generation.lora import read_lora

        if job.directory is None or _is_a_model(job):
            return None
        try:
            weights = read_lora(
                job.directory, layers=self.runner.layers, dtype=self.runner.dtype, device=self.runner.device
            )
        except InvalidAdapter as error:
            if job.role is not Role.CANDIDATE:
                raise UnusableContestant(f"the {job.role.value}'s adapter does not load: {error}") from error
            raise
        return Adapter(job.role.value, job.directory, BaseForm(job.quantization), weights)


def groups(contestants: Sequence[ContestantJob]) -> list[list[ContestantJob]]:
    """Return the contestants grouped by the model that they share, in order of first appearance."""
    found: dict[tuple[object, ...], list[ContestantJob]] = {}
    for job in contestants:
        own = job.directory if _is_a_model(job) else None
        found.setdefault((job.base.name, job.base.revision, job.quantization, own), []).append(job)
    return list(found.values())


def _is_a_model(job: ContestantJob) -> bool:
    """Return whether a contestant needs a loaded model of its own: it is a whole model, or its adapter is
    more than a LoRA and cannot be applied per row of a batch."""
    return job.whole_model or _beyond_lora(job)


def _beyond_lora(job: ContestantJob) -> bool:
    from tunewheel_basemodel.errors import InvalidAdapter
    from tunewheel_generation.lora import beyond_lora

    try:
        return job.directory is not None and not job.whole_model and beyond_lora(job.directory) is not None
    except InvalidAdapter:
        return False  # loading it will report the fault


def _located(job: ContestantJob, cache_dir: Path) -> BaseModel:
    from tunewheel_basemodel.locate import BaseModel, locate_base_model

    base = locate_base_model(job.base.name, cache_dir=cache_dir, revision=job.base.revision)
    if not job.whole_model or job.directory is None:
        return base
    _lend_tokenizer(base.path, job.directory)
    return BaseModel(name=job.base.name, path=job.directory, revision=job.base.revision)


def _lend_tokenizer(source: Path, directory: Path) -> None:
    """Copy the base's tokenizer to a whole model that was saved without one."""
    if any((directory / name).is_file() for name in _TOKENIZER_FILES):
        return
    for pattern in ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "chat_template*"):
        for file in source.glob(pattern):
            (directory / file.name).symlink_to(file)


def _loaded(job: ContestantJob, cache_dir: Path, dtype: Any) -> Runner:
    from tunewheel_generation.runner import load_runner

    return load_runner(
        _located(job, cache_dir),
        quantization=job.quantization,
        trained_dtype=dtype,
        dtype=dtype,
        rows=1,
        tokens=8,
        adapter=job.directory if _beyond_lora(job) else None,
    )
